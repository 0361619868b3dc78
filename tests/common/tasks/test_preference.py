"""Preference tuning: DPO's loss by hand, pairs of texts and of messages, and their faults."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeRun
from support.kinds import RECORDS, of_kind, task_of

from confide.common.data.batches import collate, length, padded_length
from confide.common.model.adapter import get_state, reset, set_state
from confide.common.model.warm_model import PREFIX, WarmModel, warm_model

KIND = "preference"
_TARGETS = ("target", "rejected_target")
MESSAGES = {
    "prompt": [{"role": "user", "content": "the film"}],
    "chosen": [{"role": "assistant", "content": "was good"}],
    "rejected": [{"role": "assistant", "content": "was bad"}],
}


@pytest.fixture
def model(make_run: MakeRun) -> WarmModel:
    run = of_kind(make_run(), KIND)
    model = warm_model(run)
    reset(model.module, run.study.seed)
    return model


def _log_probability(model: WarmModel, prompt: str, answer: str) -> float:
    """The log-probability of an answer by the base's own forward pass."""
    tokenizer = model.tokenizer
    begin, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, prompt + answer))
    ids = torch.tensor([[*whole, tokenizer.eos_token_id]])
    base: Any = model.module.base
    with torch.no_grad():
        logs = base(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].log_softmax(dim=1)
    return sum(float(logs[place - 1, ids[0, place]]) for place in range(len(begin), ids.shape[1]))


def _margin(model: WarmModel, record: dict[str, Any]) -> float:
    logs = {side: _log_probability(model, record["prompt"], record[side]) for side in ("chosen", "rejected")}
    return logs["chosen"] - logs["rejected"]


def _batch(model: WarmModel, records: list[dict[str, Any]]) -> Any:
    examples = [example for record in records for example in model.task.examples(record, model.tokenizer)]
    return collate(examples, padded_length(max(map(length, examples))), model.pads, model.device)


def test_the_loss_is_that_of_the_paper(model: WarmModel) -> None:
    """Equation 7, with the base without its adapter as reference; an adapter at its start gives log 2."""
    records = RECORDS[KIND]
    reference = [_margin(model, record) for record in records]
    batch = _batch(model, records)
    np.testing.assert_allclose(model.task.losses(model.module, batch).detach(), math.log(2), rtol=1e-6)
    stream = np.random.default_rng(0)
    start = get_state(model.module)
    set_state(model.module, {name: stream.normal(0, 0.5, v.shape).astype(np.float32) for name, v in start.items()})
    moved = copy.deepcopy(get_state(model.module))
    losses = model.task.losses(model.module, batch).detach()
    beta = task_of(KIND).beta
    for loss, record, before in zip(losses.tolist(), records, reference, strict=True):
        x = beta * (_margin(model, record) - before)
        assert loss == pytest.approx(math.log1p(math.exp(-x)), rel=1e-4)
        assert abs(x) > 0.01
    for name, value in get_state(model.module).items():
        np.testing.assert_array_equal(value, moved[name])  # the reference left no trace


def test_a_prediction_is_the_difference_of_the_logs(model: WarmModel) -> None:
    found = model.task.predict(model.module, _batch(model, RECORDS[KIND]))
    assert found == pytest.approx([_margin(model, record) for record in RECORDS[KIND]], abs=1e-4)


def test_messages_are_read_by_the_models_template(model: WarmModel) -> None:
    task = model.task
    assert task.check(MESSAGES) is None
    [example] = task.examples(MESSAGES, model.tokenizer)
    texts = [model.tokenizer.decode(example[name]) for name in ("input_ids", "rejected_ids")]
    assert "good" in texts[0]
    assert "bad" in texts[1]
    assert [t for t in example["target"] if t >= 0] != [t for t in example["rejected_target"] if t >= 0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chosen": ""}, "chosen"),
        ({"rejected": 3}, "rejected"),
        ({"rejected": " good"}, "chosen and rejected are the same; remove the record"),
        ({"chosen": [{"role": "assistant", "content": "x"}]}, "must both be texts, or both lists of messages"),
    ],
)
def test_a_faulty_pair_is_named(change: dict[str, Any], words: str) -> None:
    problem = task_of(KIND).check({**RECORDS[KIND][0], **change})
    assert problem is not None
    assert words in problem


def test_of_a_long_prompt_both_texts_keep_the_same_end(model: WarmModel) -> None:
    [example] = model.task.examples({**RECORDS[KIND][0], "prompt": "film " * 200}, model.tokenizer)
    begins = [next(place for place, token in enumerate(example[name]) if token >= 0) for name in _TARGETS]
    assert begins == [200 % 64, 200 % 64]
    assert example["input_ids"][: begins[0]] == example["rejected_ids"][: begins[0]]


def test_a_pair_without_an_answer_gives_nothing(model: WarmModel) -> None:
    empty = {**RECORDS[KIND][0], "chosen": [], "prompt": [], "rejected": []}
    assert model.task.check(empty) is not None
    assert model.task.join(empty, []) == 0.0


def test_metrics_count_the_pairs_that_the_model_orders_rightly() -> None:
    found = task_of(KIND).metrics([1.0] * 4, [2.0, -1.0, 0.0, 3.0])
    assert found == {"preferred": 0.5, "margin": 1.0}
    assert [task_of(KIND).rightness(1.0, value) for value in (2.0, 0.0, -1.0)] == [1.0, 0.0, 0.0]


def test_the_lower_layers_of_both_texts_are_kept(make_run: MakeRun) -> None:
    """Each text gets its own states back: given the other's, a loss would be another one."""
    run = of_kind(make_run(), KIND)
    top = run.model_copy(update={"adapter": run.adapter.model_copy(update={"layers": "top:1"})})
    model = warm_model(top)
    assert model.lower is not None
    stream = np.random.default_rng(0)
    start = get_state(model.module)
    set_state(model.module, {name: stream.normal(0, 2, v.shape).astype(np.float32) for name, v in start.items()})
    batch = _batch(model, RECORDS[KIND])
    kept = model.prefix(batch)
    assert kept.shape[-1] == model.lower.hidden_size * 2 == 2 * 32
    computed = model.task.losses(model.module, batch).detach()
    for given in (batch, {**batch, PREFIX: kept}):
        losses = model.losses(given).detach()
        torch.testing.assert_close(losses, computed, rtol=0.01, atol=0.01)  # kept in bfloat16
        assert (losses - math.log(2)).abs().max() > 0.04
    exact = {**batch, PREFIX: model.lower_states(batch)}
    torch.testing.assert_close(model.losses(exact).detach(), computed)
