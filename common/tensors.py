"""The state of an adapter: its tensors by name."""

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

Number = TypeVar("Number", np.float32, np.uint32)
State = dict[str, NDArray[np.float32]]


Schema = dict[str, tuple[int, ...]]


def dump_state(state: State) -> bytes:
    """Return a state as safetensors bytes; equal states give equal bytes."""
    return save({name: np.ascontiguousarray(value, dtype=np.float32) for name, value in sorted(state.items())})


def schema_of(state: State) -> Schema:
    """Return name and shape of every tensor."""
    return {name: value.shape for name, value in state.items()}


def norm_of(state: State) -> float:
    """Return the L2 norm over all tensors; it is NaN or infinite if an entry is."""
    with np.errstate(invalid="ignore"):  # a signalling NaN would raise a warning first
        return math.sqrt(sum(float(np.square(value, dtype=np.float64).sum()) for value in state.values()))


def split(flat_P: NDArray[Number], shapes: Schema) -> dict[str, NDArray[Number]]:
    """Cut a flat vector into the tensors of a state."""
    state, start = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        state[name] = flat_P[start : start + size].reshape(shape)
        start += size
    return state


def alphabetical(shapes: Schema) -> Schema:
    """Return the same tensors by their names: the order of the numbers of a secure sum."""
    return dict(sorted(shapes.items()))
