"""Ranking: a list is one unit, its two sides weigh the same, and what an order is worth."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.byte_level import byte_level
from support.kinds import RECORDS, of_kind, task_of
from support.tiny_bert import tiny_tokenizer
from torch.nn.functional import binary_cross_entropy_with_logits

from confide.common.config.run import RunConfig
from confide.common.data.batches import collate
from confide.common.forms.rankings import area, ndcg, reciprocal_rank
from confide.common.model.adapter import get_state, set_state
from confide.common.model.warm_model import warm_model

KIND = "ranking"
TASK = task_of(KIND)
LIST = {"query": "long?", "candidates": ["bad", "very long", "good"], "relevance": [0, 2, 1]}


def test_each_candidate_stands_behind_the_query() -> None:
    examples = TASK.examples(LIST, tiny_tokenizer())
    assert [example["number"] for example in examples] == [0, 1, 2]
    tokens = tiny_tokenizer().convert_ids_to_tokens(examples[1]["input_ids"])
    assert tokens == ["[CLS]", "long", "?", "[SEP]", "very", "long", "[SEP]"]
    assert examples[1]["part"] == [0, 1, 1, 0, 2, 2, 0]
    assert examples[1]["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


def test_a_long_query_leaves_room_for_the_candidate() -> None:
    for tokenizer in (tiny_tokenizer(), byte_level()):
        for example in TASK.examples({**LIST, "query": "long " * 90, "candidates": ["good " * 90] * 2}, tokenizer):
            assert len(example["input_ids"]) == 64
            assert example["part"].count(1) == 64 // 3
            assert example["part"].count(2) >= 40


@pytest.mark.parametrize(
    ("relevance", "relevant", "other"),
    [
        ([0, 2, 0], [0, 1.5, 0], [0.75, 0, 0.75]),
        ([2, 2, 0], [0.75, 0.75, 0], [0, 0, 1.5]),
        ([0, 1, 0], [0, 1.5, 0], [0.6, 0.3, 0.6]),
        ([2, 2, 2], [1, 1, 1], [0, 0, 0]),
        ([0, 0, 0], [0, 0, 0], [1, 1, 1]),
        ([2, 2 - 2**-52, 2], [0.5, 0.5, 0.5], [0, 1.5, 0]),
    ],
)
def test_both_sides_of_a_list_weigh_the_same(relevance: list[int], relevant: list[float], other: list[float]) -> None:
    examples = TASK.examples({**LIST, "relevance": relevance}, tiny_tokenizer())
    assert [example["relevant"] for example in examples] == pytest.approx(relevant)
    assert [example["other"] for example in examples] == pytest.approx(other)


def test_the_score_compares_a_candidate_with_its_query(make_run: Callable[..., RunConfig]) -> None:
    model = warm_model(of_kind(make_run(), KIND))
    stream = np.random.default_rng(1)
    set_state(model.module, {n: stream.normal(0, 0.1, v.shape).astype("f") for n, v in get_state(model.module).items()})
    examples = TASK.examples(LIST, model.tokenizer)
    batch = collate(examples, 16, model.pads, model.device)
    names = ("input_ids", "attention_mask", "token_type_ids")
    with torch.no_grad():
        states = model.module.encoder(**{name: batch[name] for name in names}).last_hidden_state
        states = (states - model.module.centre) / model.module.spread
        means = [[own[part == n].mean(dim=0) for n in (1, 2)] for own, part in zip(states, batch["part"], strict=True)]
        features = torch.stack([torch.cat([mean, mean * query]) for query, mean in means])
        logits = (features @ model.module.head.weight.T + model.module.head.bias).squeeze(1)
        yes, no = (binary_cross_entropy_with_logits(logits, torch.full((3,), y), reduction="none") for y in (1.0, 0.0))
        expected = yes * batch["relevant"] + no * batch["other"]
        torch.testing.assert_close(TASK.losses(model.module, batch), expected, rtol=1e-4, atol=1e-5)
        numbers, scores = zip(*TASK.predict(model.module, batch), strict=True)
    assert numbers == (0, 1, 2)
    assert list(scores) == pytest.approx(logits.sigmoid().tolist(), abs=1e-5)


def test_candidates_beyond_those_that_are_read_come_last() -> None:
    record = {**LIST, "candidates": ["a", "b", "c", "d"]}
    assert len(TASK.examples({**record, "relevance": [1, 0, 0, 2]}, tiny_tokenizer())) == 3
    assert TASK.join(record, [(2, 0.5), (0, 0.25)]) == [0.25, 0.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"query": ""}, "query is empty"),
        ({"candidates": "good"}, "candidates is 'good', must be a list of texts, at least two"),
        ({"candidates": ["good"]}, "must be a list of texts, at least two"),
        ({"candidates": ["good", " ", "bad"]}, "a candidate is empty"),
        ({"candidates": ["good", 3, "bad"]}, "a candidate is a number"),
        ({"relevance": [0, 1]}, "relevance (of 2) must be a list with a number for each of the 3 candidates"),
        ({"relevance": None}, "relevance (no list) must be"),
        ({"relevance": [0, 1, 3]}, "relevance 3 is no number from 0 to 2"),
        ({"relevance": [0, 1, -1]}, "relevance -1 is no number from 0 to 2; mend it or change task.highest"),
        ({"relevance": [0, 1, "high"]}, "relevance 'high' is no number"),
        ({"relevance": [0, 1, True]}, "relevance True is no number"),
    ],
)
def test_a_record_of_another_shape_is_named(change: dict[str, Any], words: str) -> None:
    assert TASK.check(LIST) is None
    problem = TASK.check({**LIST, **change})
    assert problem is not None
    assert words in problem


def test_a_cut_shortens_every_candidate() -> None:
    assert TASK.cut(LIST, 4) == {**LIST, "query": "long", "candidates": ["bad", "very", "good"]}
    assert TASK.cut(LIST, 9) == LIST
    assert TASK.cut({**LIST, "candidates": [3, "very long"]}, 4)["candidates"] == [3, "very"]


def test_relevance_is_a_share_of_the_highest_and_lists_may_be_arrays() -> None:
    record = {
        "query": "long?",
        "candidates": np.array(["a", "b"], dtype=object),
        "relevance": np.array([0.5, 2.0]),
    }
    assert TASK.check(record) is None
    assert TASK.truth(record) == [0.25, 1.0]
    assert len(TASK.examples(record, tiny_tokenizer())) == 2


def test_orders_are_worth_what_the_field_says() -> None:
    assert ndcg([0, 1, 0], [0.3, 0.2, 0.1]) == pytest.approx(1 / np.log2(3))
    assert ndcg([1, 0.5, 0], [0.3, 0.2, 0.1]) == 1.0
    assert reciprocal_rank([0, 0, 1, 0.5], [0.9, 0.8, 0.7, 0.1]) == pytest.approx(1 / 3)
    assert reciprocal_rank([1, 0], [0.5, 0.5]) == 0.5
    assert area([0, 1, 0, 1], [0.3, 0.2, 0.1, 0.4]) == pytest.approx(3 / 4)
    assert [rate([1, 1], [0.1, 0.2]) for rate in (ndcg, reciprocal_rank, area)] == [None] * 3
    assert (area([1, 0.5], [0.1, 0.2]), reciprocal_rank([1, 0.5], [0.1, 0.2])) == (None, 1.0)


def test_lists_without_an_order_are_left_out() -> None:
    metrics = TASK.metrics([[1, 0], [1, 1]], [[0.1, 0.2], [0.3, 0.2]])
    assert metrics == {"ndcg": pytest.approx(1 / np.log2(3)), "mrr": 0.5, "auc": 0.0}
    assert TASK.metrics([[0, 0]], [[0.1, 0.2]]) == {"ndcg": 0.0, "mrr": 0.0, "auc": 0.0}
    assert TASK.rightness([0, 0], [0.1, 0.2]) == 1.0
    assert TASK.rightness([1, 0], [0.1, 0.2]) == pytest.approx(1 / np.log2(3))


def test_made_up_lists_have_both_sides() -> None:
    assert sorted(set(TASK.made_up(0, 1)["relevance"])) == [0.0, 2.0]
    assert len(RECORDS[KIND][0]["candidates"]) > task_of(KIND).max_candidates
