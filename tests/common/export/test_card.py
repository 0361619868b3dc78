"""The model card states the guarantee with its numbers, and says loudly where there is none."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.cards import make_card, make_statement
from support.kinds import SETTINGS, task_of

from confide.common.config.run import RunConfig
from confide.common.export.card import render_card

MakeRun = Callable[..., RunConfig]


def test_the_card_states_the_guarantee_with_its_numbers(make_run: MakeRun) -> None:
    run = make_run(local={"sampling_probability": 0.2, "steps": 2}, privacy={"noise_multiplier": 1.2345})
    card = render_card(run, make_card(run))
    for words in (
        "| unit of privacy | One record. ",
        "changing a unit counts as two",
        r"| st\_mary\|\<i\> | 2.9979 | 1e-5 | 40 | 2000 |",
        "with probability 0.2, drawn anew",
        "multiplier 1.2345",
        "At most 80 steps.",
        "PLD, dp-accounting 0.6.0",
        "people with several records at one",
        "choice of hyper-parameters | **Not covered**",
        "**78.1 %**",
        run.sha256(),
    ):
        assert words in card
    group = make_run(privacy={"unit": "group"})
    text = render_card(group, make_card(group))
    assert "| unit of privacy | One group: all records of one person, or of" in text
    assert "Up to `max_records_per_group` records of one group are one unit already" in text
    assert "records in one institution" not in text


def test_the_statement_follows_the_questions_of_nist(make_run: MakeRun) -> None:
    run = make_run()
    rows = [line for line in render_card(run, make_card(run)).splitlines() if line.startswith("| ")]
    first = next(index for index, row in enumerate(rows) if row.startswith("| guarantee"))
    assert [row.split(" | ")[0] for row in rows[first : first + 12]] == [
        "| guarantee",
        "| privacy parameters",
        "| unit of privacy",
        "| mechanism",
        "| accountant",
        "| correctness",
        "| side channels",
        "| security",
        "| trust model",
        "| data collection exposure",
        "| choice of hyper-parameters",
        "| other studies",
    ]
    assert all(row.count(" | ") == 1 for row in rows[first : first + 12])  # two columns each


def test_the_statement_gives_its_numbers(make_run: MakeRun) -> None:
    run = make_run()
    card = make_card(run)
    text = render_card(run, {**card, "institutions": 4 * card["institutions"]})
    assert (
        "wrongly takes 1 % of the records outside the data for members recognises at most 4.5 % of those inside" in text
    )
    assert (
        "| one record in one institution | 2.9999 |\n"
        "| one record in each of 2 institutions | 4.1176 |\n"
        "| one record in each of 4 institutions | 5.8122 |\n"
        "| 2 records in one institution | 6.6607 |\n"
        "| 5 records in one institution | 20.2999 |\n"
    ) in text
    assert "in each of" not in render_card(run, card)  # there is one institution


def test_a_bound_that_is_no_protection_is_not_shown_as_a_number(make_run: MakeRun) -> None:
    run = make_run()
    text = render_card(run, make_card(run, statement=make_statement(records={2: 1286.44, 5: float("inf")})))
    assert "| 2 records in one institution | no bound up to 50 |\n" in text
    assert "| 5 records in one institution | no bound up to 50 |\n" in text


@pytest.mark.parametrize("absent", [True, False])
def test_without_its_numbers_the_statement_still_answers(make_run: MakeRun, absent: bool) -> None:
    run = make_run()
    card = make_card(run, statement=None)
    if absent:
        del card["statement"]
    text = render_card(run, card)
    assert "k records can cost more than k times as much" in text
    assert "Epsilon for them" not in text


def test_a_card_without_privacy_says_so_first_and_claims_nothing(make_run: MakeRun) -> None:
    run = make_run(privacy={"unit": "none", "noise_multiplier": None})
    card = render_card(run, make_card(run, simulated=True))
    assert "**NO PRIVACY.**" in card
    assert "**Simulated.**" in card
    assert "**There is none.**" in card
    assert "is (epsilon, delta)-differentially private" not in card
    assert "unit of privacy" not in card
    assert "- differential-privacy\n" not in card


def test_a_card_without_a_score_says_so(make_run: MakeRun) -> None:
    run = make_run()
    card = render_card(run, make_card(run, score=None))
    assert "Not measured" in card
    assert "Simulated" not in card


def test_the_front_matter_is_a_model_cards(make_run: MakeRun, base_folder: Path) -> None:
    run = make_run()
    front = render_card(run, make_card(run)).split("---\n")[1]
    assert f'base_model: "{base_folder.name}"\n' in front
    assert "library_name: peft\n" in front
    assert "- differential-privacy\n" in front


# Of the hub's list of tags (huggingface.js, packages/tasks/src/pipelines.ts), the nearest to each kind of the product.
TAGS = {
    "text-classification": "text-classification",
    "multi-label-classification": "text-classification",
    "relation-classification": "text-classification",
    "scoring": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "ranking": "text-ranking",
    "causal-lm": "text-generation",
    "seq2seq": "text-generation",
    "preference": "text-generation",
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_card_has_a_tag_that_the_hub_knows(kind: str, make_run: MakeRun) -> None:
    run = make_run().model_copy(update={"task": task_of(kind)})
    front = render_card(run, make_card(run)).split("---\n")[1]
    assert f"\npipeline_tag: {TAGS[run.task.kind]}\n" in front
