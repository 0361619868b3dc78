"""A state as one vector, and one institution that misbehaves in every round."""

import numpy as np
from support import misbehaving

from confide.simulations.engines.grid import Faults


def flat(state: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([value.ravel() for value in state.values()])


def always(fault: Faults) -> Faults:
    """Site-1, on node 1001, misbehaves in both rounds."""
    return misbehaving.schedule({(1001, str(number)): fault for number in (1, 2)})
