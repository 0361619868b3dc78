"""The step on an adapter after a round: AdamW or plain addition, and the released average.

The server of a run takes it, and an institution that trains for itself.

Under privacy it reads only the update, which was noised before it left, and public settings. So a rate that is held or
falls, the moments and the average cost no epsilon: what is computed from noised numbers alone is as private as they.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.common.config.sections import FederationSection
from confide.common.tensors import State

# The usual first decay of 0.9 would carry a round's noise through ten of the twenty rounds that a run may have.
_BETA1, _BETA2, _STABILITY = 0.8, 0.999, 1e-8


@dataclass(frozen=True)
class GlobalState:
    """The whole training state after ``round`` rounds.

    Attributes:
        adapter: the global adapter that institutions train next.
        average: the released exponential average of it (free post-processing that lowers the noise).
        first, second: AdamW's moments.
        round: number of rounds that changed the adapter.
    """

    adapter: State
    average: State
    first: State
    second: State
    round: int = 0


def start(adapter: State) -> GlobalState:
    """Return the state before the first round."""
    zeros = {name: np.zeros_like(value) for name, value in adapter.items()}
    return GlobalState(adapter, adapter, zeros, zeros)


def apply(state: GlobalState, update: State, settings: FederationSection) -> GlobalState:
    """Return the state after a round.

    "adamw" takes the negative update as gradient (FedOpt, Reddi et al., arXiv 2003.00295; AdamW without weight decay,
    Loshchilov and Hutter, arXiv 1711.05101) with a learning rate that falls linearly to `learning_rate_left` of itself.
    "none" adds the update.
    """
    number = state.round + 1
    first, second, adapter = state.first, state.second, {}
    if settings.server_optimizer == "adamw":
        first = {name: _float32(_BETA1 * first[name] - (1 - _BETA1) * update[name]) for name in update}
        second = {name: _float32(_BETA2 * second[name] + (1 - _BETA2) * np.square(update[name])) for name in update}
        fallen = (1 - settings.learning_rate_left) * min(1.0, state.round / settings.num_rounds)
        rate = settings.learning_rate * (1 - fallen)
        rate *= math.sqrt(1 - _BETA2**number) / (1 - _BETA1**number)
        for name, value in state.adapter.items():
            adapter[name] = _float32(value - rate * first[name] / (np.sqrt(second[name]) + _STABILITY))
    else:
        adapter = {name: _float32(value + update[name]) for name, value in state.adapter.items()}
    # A young average follows faster; otherwise the start values would stay in it.
    decay = min(settings.average_decay, state.round / number)
    average = {name: _float32(decay * state.average[name] + (1 - decay) * adapter[name]) for name in adapter}
    return GlobalState(adapter, average, first, second, number)


def _float32(value: NDArray[Any]) -> NDArray[np.float32]:
    return value.astype(np.float32)
