"""The model card states the guarantee with its numbers, and says loudly where there is none."""

from collections.abc import Callable
from pathlib import Path

from support.cards import make_card

from confide.common.export import render_card
from confide.common.run_config import RunConfig

MakeRun = Callable[..., RunConfig]


def test_the_card_states_the_guarantee_with_its_numbers(make_run: MakeRun) -> None:
    run = make_run(local={"sampling_probability": 0.2, "steps": 2}, privacy={"noise_multiplier": 1.2345})
    card = render_card(run, make_card(run))
    for words in (
        "one\nrecord as the unit",
        "Changing a unit counts as two",
        r"| st\_mary\|\<i\> | 2.9979 | 1e-5 | 40 | 2000 |",
        "probability 0.2 in every step",
        "multiplier 1.2345",
        "at most 80 steps",
        "PLD, dp-accounting 0.6.0",
        "several records of one person",
        "choice of hyper-parameters",
        "**78.1 %**",
        run.sha256(),
    ):
        assert words in card
    group = make_run(privacy={"unit": "group"})
    assert "one\ngroup as the unit: all records of one person" in render_card(group, make_card(group))


def test_a_card_without_privacy_says_so_first_and_claims_nothing(make_run: MakeRun) -> None:
    run = make_run(privacy={"unit": "none", "noise_multiplier": None})
    card = render_card(run, make_card(run, simulated=True))
    assert "**NO PRIVACY.**" in card
    assert "**Simulated.**" in card
    assert "**There is none.**" in card
    assert "is (epsilon, delta)-differentially private" not in card
    assert "- differential-privacy\n" not in card


def test_a_card_without_accuracy_says_so(make_run: MakeRun) -> None:
    run = make_run()
    card = render_card(run, make_card(run, accuracy=None))
    assert "Not measured" in card
    assert "Simulated" not in card


def test_the_front_matter_is_a_model_cards(make_run: MakeRun, base_folder: Path) -> None:
    run = make_run()
    front = render_card(run, make_card(run)).split("---\n")[1]
    assert f'base_model: "{base_folder.name}"\n' in front
    assert "library_name: peft\n" in front
    assert "pipeline_tag: text-classification\n" in front
    assert "- differential-privacy\n" in front
