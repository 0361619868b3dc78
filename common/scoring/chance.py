"""Two questions to a test on few records: how far its result can be trusted, and whether a difference is chance.

Both resample units, because the records of one person belong together. Both hold for every kind of task, because they
use nothing but its headline. Their random numbers are fixed, so that a repeated test says the same.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.random import PCG64, Generator

from confide.common.tasks import Task

_DRAWS = 500
CHANCE = 0.05  # a difference that exchanged predictions reach more often than this is within chance
CONFIDENCE = 0.95


class HeldOut(NamedTuple):
    """Held-out records, and the records of each unit by their places."""

    task: Task
    truths: Sequence[Any]
    units: Sequence[Sequence[int]]

    def score(self, predictions: Sequence[Any]) -> float:
        """Return the headline of these predictions."""
        return self.task.score(self.truths, predictions)


class Interval(NamedTuple):
    """A 95 % interval of a headline, and its method."""

    low: float
    high: float
    method: str


def interval(test: HeldOut, predictions: Sequence[Any]) -> Interval:
    """Return an interval of the headline: Wilson's where there is one.

    Else the percentiles of a bootstrap over units, which a few alike records make too narrow. It takes five hundred
    scores.
    """
    if found := wilson(test, predictions):
        return found
    stream, scores = Generator(PCG64(0)), list[float]()
    for _ in range(_DRAWS):
        drawn = stream.integers(len(test.units), size=len(test.units))
        places = [place for unit in drawn.tolist() for place in test.units[unit]]
        scores.append(test.task.score(_at(test.truths, places), _at(predictions, places)))
    low, high = np.nanquantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high), "bootstrap over units")


def wilson(test: HeldOut, predictions: Sequence[Any]) -> Interval | None:
    """Return Wilson's interval, which stays honest where all are right.

    None where the headline is no share of records that are right, or where units have several records.
    """
    right = [test.task.rightness(*pair) for pair in zip(test.truths, predictions, strict=True)]
    alone = all(len(unit) == 1 for unit in test.units)
    if not alone or not {*right} <= {0.0, 1.0} or abs(sum(right) / len(right) - test.score(predictions)) > 1e-9:
        return None
    from scipy.stats import binomtest

    found = binomtest(int(sum(right)), len(right)).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(found.low), float(found.high), "Wilson")


def by_chance(test: HeldOut, one: Sequence[Any], other: Sequence[Any]) -> float:
    """Return how often chance alone makes a difference as large as that of two adapters: a p-value, two-sided.

    If both were equally good, it would not matter which of them gave which of a unit's predictions. So those of a
    random half of the units change sides, again and again (approximate randomisation, Noreen 1989).
    """
    seen, stream, reached = abs(test.score(one) - test.score(other)), Generator(PCG64(0)), 0
    for _ in range(_DRAWS):
        mixed = [list(one), list(other)]
        for unit in np.flatnonzero(stream.random(len(test.units)) < 0.5).tolist():
            for place in test.units[unit]:
                mixed[0][place], mixed[1][place] = other[place], one[place]
        reached += not abs(test.score(mixed[0]) - test.score(mixed[1])) < seen - 1e-12
    return (reached + 1) / (_DRAWS + 1)


def _at(values: Sequence[Any], places: Sequence[int]) -> list[Any]:
    return [values[place] for place in places]
