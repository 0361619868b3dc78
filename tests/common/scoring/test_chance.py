"""Intervals and chance on few records: they hold what they promise where the truth is known."""

import numpy as np
import pytest
from support.kinds import task_of

from confide.common.model.scores import gain
from confide.common.scoring.chance import CHANCE, HeldOut, by_chance, interval

TASK = task_of("text-classification")
LABELS = ("negative", "positive")


def _held_out(truths: list[str], size: int = 1) -> HeldOut:
    starts = range(0, len(truths), size)
    return HeldOut(TASK, truths, [range(start, start + size) for start in starts])


def _guesses(stream: np.random.Generator, truths: list[str], right: float) -> list[str]:
    wrong = {"negative": "positive", "positive": "negative"}
    return [truth if stream.random() < right else wrong[truth] for truth in truths]


@pytest.mark.parametrize(
    ("right", "count", "low", "high"), [(10, 10, 0.722, 1.0), (0, 10, 0.0, 0.278), (8, 10, 0.490, 0.943)]
)
def test_an_accuracy_has_wilsons_interval(right: int, count: int, low: float, high: float) -> None:
    """By hand: (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with z = 1.96."""
    found = interval(_held_out(["positive"] * 10), ["positive"] * right + ["negative"] * (10 - right))
    assert found.method == "Wilson"
    assert (round(found.low, 3), round(found.high, 3)) == (low, high)


def test_records_of_one_unit_are_drawn_together() -> None:
    """Five alike records of a person are no five witnesses: the interval is that of the people."""
    truths = ["positive"] * 100
    predictions = (["positive"] * 5 + ["negative"] * 5) * 10
    grouped, alone = interval(_held_out(truths, 5), predictions), interval(_held_out(truths), predictions)
    assert grouped.method == "bootstrap over units"
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_equal_adapters_are_rarely_told_apart_and_unequal_ones_are() -> None:
    stream = np.random.default_rng(1)
    test = _held_out([LABELS[number % 2] for number in range(60)])

    def chance(one: float, other: float) -> float:
        return by_chance(test, *(_guesses(stream, list(test.truths), right) for right in (one, other)))

    assert sum(chance(0.7, 0.7) <= CHANCE for _ in range(40)) <= 7, "2 are expected; more come in 1 of 1,000 tries"
    assert max(chance(0.95, 0.5) for _ in range(10)) < CHANCE


def test_a_handful_of_records_proves_nothing() -> None:
    """Of four records, one adapter has all right and the other none: exchanged at random, 2 of 16 tries do as much."""
    test = _held_out(["positive"] * 4)
    assert by_chance(test, ["positive"] * 4, ["negative"] * 4) == pytest.approx(2 / 16, abs=0.04)
    assert by_chance(test, ["positive"] * 4, ["positive"] * 4) == 1.0


def test_units_change_sides_as_a_whole() -> None:
    """Eight records of two people are two witnesses: half of the exchanges do as much."""
    test = _held_out(["positive"] * 8, 4)
    assert by_chance(test, ["positive"] * 8, ["negative"] * 8) == pytest.approx(1 / 2, abs=0.07)


def test_a_lower_perplexity_is_better() -> None:
    assert gain("perplexity", 10.0, 12.0) == 2.0
    assert gain("accuracy", 0.5, 0.75) == -0.25
