"""Scoring: the public range, what is no score, correlations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.byte_level import byte_level
from support.kinds import RECORDS, of_kind, task_of
from support.tiny_bert import tiny_tokenizer

from confide.common.config.run import RunConfig
from confide.common.config.toml import check
from confide.common.errors import InputError
from confide.common.model.adapter import get_state, set_state
from confide.common.model.evaluation import predict
from confide.common.model.warm_model import warm_model

TASK = task_of("scoring")
TEXTS = ("the film was good", "bad", "a long and very bad film, 12 times", "i loved it")


@pytest.mark.parametrize("score", [-4, 4, 0.5, "1e0", "-3.25"])
def test_numbers_and_their_texts_are_scores(score: Any) -> None:
    assert TASK.check({"text": "x", "score": score}) is None
    assert TASK.truth({"score": score}) == float(score)


@pytest.mark.parametrize("score", [None, "good", True, 4.1, -5, float("nan"), "inf", [1], 10**400])
def test_a_score_outside_the_range_is_named_with_the_remedy(score: Any) -> None:
    problem = TASK.check({"text": "x", "score": score})
    assert problem is not None
    assert "is no number from -4 to 4; mend it or change task.lowest" in problem


def test_a_range_must_not_be_empty() -> None:
    content = {"study": {"name": "s"}, "task": {"kind": "scoring", "lowest": 1.0, "highest": 1.0}}
    with pytest.raises(InputError, match=r"lowest = 1 must be below task.highest = 1"):
        check(RunConfig, content, "run.toml")


def test_a_step_of_the_server_moves_no_score_across_the_range(make_run: Callable[..., RunConfig]) -> None:
    """It moves each number of the head by about the learning rate, under much noise in any direction."""
    model = warm_model(of_kind(make_run(), "scoring"))
    state, stream = get_state(model.module), np.random.default_rng(0)
    moved = []
    for _ in range(20):
        signs = stream.choice([-1.0, 1.0], state["head.weight"].shape)
        set_state(model.module, {**state, "head.weight": (5e-2 * signs).astype(np.float32)})
        moved += [abs(score) / 8 for score in predict(model, [{"text": text} for text in TEXTS])]
    assert 0.01 < sum(moved) / len(moved) < 0.15  # shares of the range, from its middle
    set_state(model.module, state)


def test_correlations_of_scores_that_are_all_one_are_zero() -> None:
    assert TASK.metrics([1.0, 2.0], [3.0, 3.0])["pearson"] == 0.0
    assert TASK.metrics([1.0, 2.0, 4.0], [2.0, 3.0, 3.5])["spearman"] == pytest.approx(1.0)
    assert TASK.metrics([1.0, 2.0], [2.0, 0.0])["mean absolute error"] == 1.5


def test_rightness_is_one_less_the_share_of_the_range() -> None:
    assert TASK.rightness(-4.0, 4.0) == 0.0
    assert TASK.rightness(0.0, 2.0) == 0.75


def test_of_two_texts_the_longer_one_is_cut() -> None:
    pairs = task_of("scoring, pair", max_length=16)
    [example] = pairs.examples({"text": "film " * 30, "text_pair": "the good film", "score": 1}, tiny_tokenizer())
    tokens = tiny_tokenizer().convert_ids_to_tokens(example["input_ids"])
    assert tokens == ["[CLS]", *["film"] * 10, "[SEP]", "the", "good", "film", "[SEP]"]
    assert example["token_type_ids"] == [0] * 12 + [1] * 4


@pytest.mark.parametrize("name", ["text", "text_pair"])
@pytest.mark.parametrize("kind", ["scoring, pair", "text-classification, pair"])
def test_an_empty_text_of_two_is_named(kind: str, name: str) -> None:
    assert (
        task_of(kind).check({**RECORDS[kind][0], name: " "}) == f"{name} is empty; remove the record or give it a text"
    )


def test_a_tokenizer_that_tells_no_texts_apart_gives_no_column() -> None:
    [example] = task_of("scoring, pair").examples({"text": "a", "text_pair": "b", "score": 1}, byte_level())
    assert example.keys() == {"input_ids", "share"}
