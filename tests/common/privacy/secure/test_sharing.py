import math
import re
from fractions import Fraction

import pytest
from support.planting import Planted, require_caught

from confide.common.privacy.secure import sharing


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"max_colluding": 17}, "max_colluding=17 must be from 0 to min_members - 2 = 16"),
        ({"max_colluding": -1}, "max_colluding=-1 must be from 0"),
        ({"grid_bits": 9}, "grid_bits=9 must be from 10 to 19"),
        ({"grid_bits": 20}, "grid_bits=20 must be from 10 to 19"),
        ({"share_variance": 64**2 - 1}, "share_variance=4095 must be at least 64^2"),
        ({"share_variance": 2**51}, "is too large"),
    ],
)
def test_a_field_out_of_range_is_named(change: dict[str, int], rule: str) -> None:
    with pytest.raises(ValueError, match=re.escape(rule)):
        sharing.Sharing(**{"min_members": 18, "max_colluding": 3, "grid_bits": 19, "share_variance": 2**36, **change})


@pytest.mark.parametrize("bits", [10, 14, 19])
@pytest.mark.parametrize("noise", [0.7, 1.6254, 3.685, 40.0])
@pytest.mark.parametrize("num_honest", [2, 7, 15])
def test_the_least_variance_holds_and_one_less_does_not(bits: int, noise: float, num_honest: int) -> None:
    variance = sharing.least_variance(noise, 0.0, num_honest, bits)
    found = sharing.Sharing(num_honest + 1, 1, bits, variance)
    assert found.holds(noise)
    assert not sharing.Sharing(num_honest + 1, 1, bits, variance - 1).holds(noise)
    exact = (Fraction(noise) * 2**bits) ** 2 + sharing.SMOOTHING
    assert num_honest * variance >= exact > num_honest * (variance - 1)


def test_a_multiplier_is_rounded_down_and_leaves_the_smoothing_out() -> None:
    for shares in (1, 2, 15):
        found = sharing.Sharing(18, 3, 10, 64**2 + 5).multiplier_of(shares)
        exact = math.sqrt((shares * (64**2 + 5) - sharing.SMOOTHING) / 4**10)
        assert exact - 1e-6 <= found <= exact
        assert (Fraction(found) * 2**10) ** 2 + sharing.SMOOTHING <= shares * (64**2 + 5)


def test_the_grid_is_the_finest_on_which_nothing_wraps() -> None:
    assert [sharing.grid_bits(units) for units in (20 * 0.2 * 300, 4 * 0.2 * 2000, 100 * 0.2 * 2000)] == [19, 19, 14]
    assert sharing.grid_bits(2**20) == 10
    with pytest.raises(ValueError, match=r"lower local\.sampling_probability"):
        sharing.grid_bits(2**20 + 1)


def test_a_sum_that_does_not_fit_its_grid_says_what_to_change() -> None:
    made = sharing.Sharing(18, 3, 19, 2**36)
    assert made.room_problem(2048, 37_634) is None
    assert "2,049 units, a sum takes 2,048; raise local.nominal_units" in str(made.room_problem(2049, 37_634))
    coarse = sharing.Sharing(18, 3, 10, 2**20)
    assert coarse.room_problem(100, 1677) is None
    assert "loses 2.0% of a gradient on a grid of 2^10 steps" in str(coarse.room_problem(100, 1678))
    assert made.room_problem(1, sharing.MAX_COORDINATES) is None
    told = "the adapter has 33,554,432 numbers, a secure sum at most 33,554,431; train fewer layers"
    assert made.room_problem(1, sharing.MAX_COORDINATES + 1) == told


PLANTED: Planted = {
    "no-smoothing": (
        "steps * steps + SMOOTHING",
        "steps * steps",
        lambda: test_the_least_variance_holds_and_one_less_does_not(10, 0.7, 2),
    ),
    "variance-over-all-members": (
        "return self.min_members - self.max_colluding",
        "return self.min_members",
        lambda: test_the_least_variance_holds_and_one_less_does_not(19, 1.6254, 7),
    ),
    "rounded-down": (
        "return math.ceil(max(whole, alone))",
        "return math.floor(max(whole, alone))",
        lambda: test_the_least_variance_holds_and_one_less_does_not(19, 1.6254, 7),
    ),
    "multiplier-rounded-up": (
        "return steps / _DIGITS",
        "return (steps + 1) / _DIGITS",
        test_a_multiplier_is_rounded_down_and_leaves_the_smoothing_out,
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_caught(monkeypatch, sharing, PLANTED[name])
