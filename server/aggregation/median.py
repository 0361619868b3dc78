"""Coordinate-wise median (Yin et al., arXiv 1803.01498): up to half may send anything in bounds.

It is the rule of Flower's FedMedian. It ignores weights and keeps all updates of a round in memory.
"""

import numpy as np

from confide.common.tensors import State


def init() -> tuple[State, ...]:
    """Return the state of no updates."""
    return ()


def add(state: tuple[State, ...], update: State, weight: float) -> tuple[State, ...]:
    """Return the state with one more update."""
    return (*state, update)


def result(state: tuple[State, ...]) -> State:
    """Return the median of each coordinate as float32."""
    return {name: np.median([update[name] for update in state], axis=0).astype(np.float32) for name in state[0]}
