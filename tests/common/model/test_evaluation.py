"""Predictions and scores: many small shares are scored as each alone would be."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from support.kinds import of_kind
from support.tiny_bert import WORDS

from confide.common.config.run import RunConfig
from confide.common.model import evaluation
from confide.common.model.adapter import get_state, reset, set_state
from confide.common.model.evaluation import evaluate, predict, samples
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.tensors import State

# Shares of 1, 2, 3, ... records, of 1 to 40 words each.
SHARES: dict[str, list[dict[str, Any]]] = {
    f"site-{size}": [
        {"text": " ".join(WORDS[(size + row + word) % 12] for word in range((7 * size * row) % 40 + 1)), "label": label}
        for row, label in zip(range(size), ["negative", "positive"] * size, strict=False)
    ]
    for size in range(1, 13)
}


@pytest.fixture
def state(model: WarmModel) -> State:
    """An adapter that calls about half of the texts positive."""
    reset(model.module, 3)
    set_state(model.module, {name: np.sign(value) for name, value in get_state(model.module).items()})
    return get_state(model.module)


@pytest.fixture
def batches(model: WarmModel) -> Iterator[list[torch.Size]]:
    """The shapes of the batches that the model reads."""
    shapes: list[torch.Size] = []
    hook = model.module.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    yield shapes
    hook.remove()


def test_a_share_among_others_scores_as_it_does_alone(
    model: WarmModel, state: State, batches: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {name: evaluate(model, state, {name: share}).per_institution[name] for name, share in SHARES.items()}
    assert len(set(alone.values())) > 4  # a share mistaken for another would show
    before = len(batches)
    together = evaluate(model, state, SHARES)
    assert together.per_institution == alone
    assert list(together.per_institution) == list(SHARES)
    assert len(batches) - before < before / 3
    monkeypatch.setattr(evaluation, "_RECORDS_AT_A_TIME", 7)
    assert evaluate(model, state, SHARES) == together


def test_memory_is_that_of_some_records_and_of_one_batch(
    model: WarmModel, state: State, batches: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [record for share in SHARES.values() for record in share]
    whole = predict(model, records)
    asked: list[int] = []
    monkeypatch.setattr(evaluation, "_RECORDS_AT_A_TIME", 10)
    some = evaluation._predict_some
    monkeypatch.setattr(evaluation, "_predict_some", lambda *given: (asked.append(len(given[1])), some(*given))[1])
    batches.clear()
    assert predict(model, records, tokens_per_batch=64) == whole
    assert asked == [10] * 7 + [8]
    assert max(rows * padded for rows, padded in batches) <= 64


def test_a_text_without_tokens_is_predicted_as_nothing_in_its_place(model: WarmModel, state: State) -> None:
    examples = model.task.examples
    texts = [{"text": text, "label": "positive"} for text in ("the film", "", "was good")]

    class Bare:
        """The task, but an empty text has no special tokens either."""

        def examples(self, record: Any, tokenizer: Any) -> Any:
            return examples(record, tokenizer) if record["text"] else [{"input_ids": [], "label": 0}]

        predict = staticmethod(model.task.predict)
        join = staticmethod(model.task.join)
        columns = staticmethod(model.task.columns)

    bare = WarmModel(model.module, model.wrapped, model.tokenizer, Bare(), model.device)  # type: ignore[arg-type]
    expected = predict(model, [texts[0], texts[2]])
    assert predict(bare, texts) == [expected[0], "", expected[1]]


def test_the_windows_of_a_record_are_joined_in_their_order(
    make_run: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are by length, so the last and shortest window is predicted first."""
    model = warm_model(of_kind(make_run(), "token-classification"))
    record = model.task.made_up(0, 1, 80)
    monkeypatch.setattr(type(model.task), "join", lambda self, record, outputs: [min(words) for words in outputs])
    [firsts] = predict(model, [record])
    assert firsts == sorted(firsts)
    assert len(firsts) == len(model.task.examples(record, model.tokenizer)) > 1


def test_samples_are_spread_over_all_records_and_cut(model: WarmModel, state: State) -> None:
    records = [{"text": f"{number} {'film ' * 300}", "label": "positive"} for number in range(35)]
    found = samples(model, state, records)
    assert [sample["input"].split()[0] for sample in found] == [str(number) for number in range(0, 30, 3)]
    assert {len(sample["input"]) for sample in found} == {602}
    assert [sample["answer"] for sample in found] == predict(model, records[::3][:10])


def test_numbers_of_samples_have_three_decimals() -> None:
    texts = [evaluation._text(value) for value in (0.123456, [1 / 3, 2.0], ["é"], [], {"a": 1})]
    assert texts == ["0.123", "[0.333, 2.0]", "é", "[]", '{"a": 1}']
