"""Weighted mean of updates (McMahan et al., arXiv 1602.05629, algorithm 1), streaming, so one update in memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from confide.common.tensors import State


@dataclass(frozen=True)
class Sum:
    """A running weighted sum in float64."""

    total: dict[str, NDArray[np.float64]]
    weight: float


def init() -> Sum:
    """Return the sum of no updates."""
    return Sum({}, 0.0)


def add(state: Sum, update: State, weight: float) -> Sum:
    """Return the sum with one more update. ``weight`` is public and above 0."""
    total = {name: state.total.get(name, 0.0) + weight * value.astype(np.float64) for name, value in update.items()}
    return Sum(total, state.weight + weight)


def result(state: Sum) -> State:
    """Return the mean as float32. At least one update must have been added."""
    return {name: (value / state.weight).astype(np.float32) for name, value in state.total.items()}
