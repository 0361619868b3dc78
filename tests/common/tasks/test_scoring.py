"""Scoring: the public range, what is no score, correlations."""

from typing import Any

import pytest
from support.kinds import task_of

from confide.common.config.run import RunConfig
from confide.common.config.toml import check
from confide.common.errors import InputError

TASK = task_of("scoring")


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


def test_correlations_of_scores_that_are_all_one_are_zero() -> None:
    assert TASK.metrics([1.0, 2.0], [3.0, 3.0])["pearson"] == 0.0
    assert TASK.metrics([1.0, 2.0, 4.0], [2.0, 3.0, 3.5])["spearman"] == pytest.approx(1.0)
    assert TASK.metrics([1.0, 2.0], [2.0, 0.0])["mean absolute error"] == 1.5


def test_rightness_is_one_less_the_share_of_the_range() -> None:
    assert TASK.rightness(-4.0, 4.0) == 0.0
    assert TASK.rightness(0.0, 2.0) == 0.75
