"""Coordinate-wise median (Yin et al., arXiv 1803.01498): up to half of the institutions may send anything in bounds.

The rule of Flower's FedMedian; weights are ignored. It keeps all updates of a round in memory.
"""

import numpy as np

from confide.common.tensors import State


def init() -> tuple[State, ...]:
    """No updates."""
    return ()


def add(state: tuple[State, ...], update: State, weight: float) -> tuple[State, ...]:
    """One more update."""
    return (*state, update)


def result(state: tuple[State, ...]) -> State:
    """The median of each coordinate, float32."""
    return {name: np.median([update[name] for update in state], axis=0).astype(np.float32) for name in state[0]}
