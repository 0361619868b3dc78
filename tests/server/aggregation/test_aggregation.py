import numpy as np
import pytest

from confide.common.tensors import State
from confide.server.aggregation import RULES

VALUES = [1.0, 2.0, 3.0, 4.0, 1000.0]


def _aggregate(rule: str, values: list[float], weights: list[float] | None = None) -> State:
    chosen = RULES[rule]
    state = chosen.init()
    for value, weight in zip(values, weights or [1.0] * len(values), strict=True):
        update = {"b": np.full((2, 2), value, np.float32), "a": np.array([-value, 0], np.float32)}
        state = chosen.add(state, update, weight)
    result: State = chosen.result(state)
    return result


@pytest.mark.parametrize(("rule", "expected"), [("fedavg", 202.0), ("median", 3.0), ("trimmed-mean", 3.0)])
def test_a_rule_gives_its_mean(rule: str, expected: float) -> None:
    result = _aggregate(rule, VALUES)
    np.testing.assert_allclose(result["b"], np.full((2, 2), expected))
    np.testing.assert_allclose(result["a"], [-expected, 0])


@pytest.mark.parametrize("rule", RULES)
def test_one_update_is_its_own_mean(rule: str) -> None:
    assert _aggregate(rule, [5.0])["b"].tolist() == [[5.0, 5.0]] * 2


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_replies_does_not_matter(rule: str) -> None:
    np.testing.assert_array_equal(_aggregate(rule, VALUES)["b"], _aggregate(rule, VALUES[::-1])["b"])


@pytest.mark.parametrize("rule", RULES)
def test_the_result_is_float32_in_the_schema_of_the_updates(rule: str) -> None:
    result = _aggregate(rule, VALUES)
    assert {name: (value.shape, value.dtype.name) for name, value in result.items()} == {
        "b": ((2, 2), "float32"),
        "a": ((2,), "float32"),
    }


def test_the_average_is_weighted_by_public_weights() -> None:
    assert _aggregate("fedavg", [1.0, 4.0], [2.0, 1.0])["b"][0, 0] == pytest.approx(2.0)


@pytest.mark.parametrize("rule", ["median", "trimmed-mean"])
def test_a_robust_rule_ignores_weights(rule: str) -> None:
    np.testing.assert_array_equal(_aggregate(rule, VALUES, [9, 1, 1, 1, 1])["b"], _aggregate(rule, VALUES)["b"])


def test_the_average_is_summed_in_float64() -> None:
    """Ten thousand updates of 1 on a large one: float32 would lose them all."""
    assert _aggregate("fedavg", [2.0**26] + [1.0] * 100)["b"][0, 0] == np.float32((2.0**26 + 100) / 101)


def test_a_sum_is_never_changed_in_place() -> None:
    rule = RULES["fedavg"]
    first = rule.add(rule.init(), {"a": np.ones(2, np.float32)}, 1.0)
    rule.add(first, {"a": np.ones(2, np.float32)}, 1.0)
    assert rule.result(first)["a"].tolist() == [1.0, 1.0]
