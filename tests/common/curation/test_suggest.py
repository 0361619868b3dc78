"""Records to label next: the most uncertain ones, of many sorts."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.kinds import RECORDS, of_kind, task_of
from support.sites import make_records, random_state

from confide.common.config.run import RunConfig
from confide.common.curation import suggest
from confide.common.curation.suggest import chosen_records, require_measure, uncertainties
from confide.common.data.batches import collate, length
from confide.common.errors import InputError
from confide.common.model.adapter import set_state
from confide.common.model.warm_model import WarmModel, warm_model

MEASURED = (
    "text-classification",
    "text-classification, pair",
    "multi-label-classification",
    "relation-classification",
    "token-classification",
    "token-classification, spans",
)
REFUSED = ("scoring", "causal-lm", "seq2seq", "question-answering", "ranking")


@pytest.fixture
def of(make_run: Callable[..., RunConfig]) -> Callable[[str], WarmModel]:
    def load(kind: str) -> WarmModel:
        model = warm_model(of_kind(make_run(), kind))
        set_state(model.module, random_state(model))
        return model

    return load


def _inputs(model: WarmModel, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: record[name] for name in model.task.inputs()} for record in records]


def _entropy(shares: torch.Tensor) -> torch.Tensor:
    return -(shares * shares.log()).sum(-1) / math.log(shares.shape[-1])


@pytest.mark.parametrize("kind", MEASURED)
def test_the_uncertainty_is_the_entropy_of_the_answer(kind: str, of: Callable[[str], WarmModel]) -> None:
    model = of(kind)
    records = _inputs(model, RECORDS[kind])
    found = dict(chosen_records(model, records, 2))
    for place, record in enumerate(records):
        example = model.task.examples(record, model.tokenizer)[0]
        batch = collate([example], length(example), model.pads, model.device)
        with torch.no_grad():
            logits = model.task.logits(model.module, batch)[0]  # type: ignore[attr-defined]
        if kind == "multi-label-classification":
            yes = logits.sigmoid()
            expected = _entropy(torch.stack([yes, 1 - yes], -1)).max()
        elif "token" in kind:
            expected = _entropy(logits.softmax(-1))[batch["word"][0] > 0].max()
        else:
            expected = _entropy(logits.softmax(-1))
        assert found[place] == pytest.approx(float(expected), abs=1e-4)
        assert 0 < found[place] < 1


def test_a_token_that_begins_no_word_counts_for_nothing(of: Callable[[str], WarmModel]) -> None:
    model = of("token-classification")
    example = model.task.examples(RECORDS["token-classification"][0], model.tokenizer)[0]
    batch = collate([example], length(example), model.pads, model.device)
    with torch.no_grad():
        assert uncertainties(model.task, model.module, {**batch, "word": batch["word"] * 0}) == [0.0]


@pytest.mark.parametrize("kind", REFUSED)
def test_a_kind_without_probabilities_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match=f"task.kind = '{kind}' gives no probability"):
        require_measure(task_of(kind))


def test_one_suggestion_is_the_most_uncertain_record(of: Callable[[str], WarmModel]) -> None:
    model = of("text-classification")
    records = _inputs(model, make_records(40))
    ordered = dict(chosen_records(model, records, 40))
    assert len(ordered) == 40
    assert list(ordered.values()) == sorted(ordered.values(), reverse=True)
    assert chosen_records(model, records, 1) == [next(iter(ordered.items()))]


def test_uncertain_records_that_are_alike_are_suggested_once(
    of: Callable[[str], WarmModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of one sort are the most uncertain; three suggestions are of three sorts, each its most uncertain."""
    texts = [
        *(f"the long film was bad, take {number}" for number in range(8)),
        "loved it",
        "loved it!",
        "not 123 short",
    ]
    unsure = [0.9] * 8 + [0.5, 0.6, 0.4]
    monkeypatch.setattr(suggest, "of_windows", lambda *given: [[value] for value in unsure])
    found = chosen_records(of("text-classification"), [{"text": text} for text in texts], 3)
    assert found == [(0, 0.9), (9, 0.6), (10, 0.4)]


def test_records_that_the_task_cannot_read_are_passed_over(of: Callable[[str], WarmModel]) -> None:
    model = of("text-classification")
    strange = [{"text": value} for value in (None, "", 3, ["a", "b"], "the film", {"a": 1}, "\ud800", "bad")]
    assert {place for place, _ in chosen_records(model, strange, 8)} == {4, 7}
    assert chosen_records(model, [{"text": ""}], 3) == []
    marks = _inputs(of("relation-classification"), [*RECORDS["relation-classification"], {"text": "no marks"}])
    assert len(chosen_records(of("relation-classification"), marks, 3)) == 2
