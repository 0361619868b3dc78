"""The gate: an untrusted state against its schema. Both ends use it, before anything else looks at the bytes."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from confide.common.privacy.plan import NoPrivacy, Plan
from confide.common.tensors import Schema, State, norm_of

# Of what a server sends. The guarantee holds for any weights, but the larger they are, the further a rounding can grow.
# AdamW moves a coordinate by about the learning rate at most: 60 rounds at 5e-2, falling to 0, by 1.5, and the 184,000
# numbers of a rank-8 adapter on 30 layers then have a norm of 640. Measured: 17 after 5 rounds of 37,634 numbers.
RECEIVED_NORM_BOUND = 1000.0
_MOST_TIMES = 20  # that an institution may be larger or smaller than the run's public `nominal_units`
_HEADER_ALLOWANCE = 256  # bytes a tensor may take in a safetensors header


class GateError(Exception):
    """Why a state was dropped: a short reason without any of its content."""


def load_state(payload: bytes, shapes: Schema, norm_bound: float) -> State:
    """Untrusted bytes as a state.

    Args:
        payload: safetensors bytes from the other end.
        shapes: the exact names and shapes that are expected, no more and no fewer.
        norm_bound: bound on the L2 norm over all tensors.

    Returns:
        The state in the order of ``shapes``, float32, finite, within the bound.

    Raises:
        GateError: anything else.
    """
    tensors = load_tensors(payload, {name: ("float32", shape) for name, shape in shapes.items()})
    return bounded(tensors, norm_bound)


def load_tensors(payload: bytes, form: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, NDArray[Any]]:
    """Untrusted bytes as tensors of exactly these names, types and shapes, in that order; `GateError` otherwise."""
    expected = sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in form.values())
    if len(payload) > expected + _HEADER_ALLOWANCE * (len(form) + 1):
        raise GateError(f"size: {len(payload)} bytes, expected about {expected}")
    try:
        tensors = load(payload)
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise GateError("format: not safetensors") from None
    if tensors.keys() != form.keys():
        raise GateError("keys: not those of the adapter")
    for name, (dtype, shape) in form.items():
        if tensors[name].dtype != dtype or tensors[name].shape != shape:
            raise GateError(f"tensor {name}: must be {dtype} of shape {shape}")
    return {name: tensors[name] for name in form}


def bounded(state: State, norm_bound: float) -> State:
    """A state whose L2 norm over all tensors is finite and within the bound; `GateError` otherwise."""
    if not norm_of(state) <= norm_bound:  # also false for nan
        raise GateError("norm: not finite, or above the bound")
    return state


def update_norm_bound(plan: Plan, shapes: Schema, local_steps: int, learning_rate: float) -> float:
    """A bound that no honest update passes: ten times what clip and noise allow at the declared size.

    The noise of the head is divided by ``head_weight``, so that is taken for every coordinate. Without privacy
    there is no clip; 1000 stands in for it.
    """
    if isinstance(plan, NoPrivacy):
        return 1000.0 * local_steps * learning_rate
    size = sum(math.prod(shape) for shape in shapes.values())
    noise = plan.noise_stddev * math.sqrt(size) / plan.expected_batch_size
    return 10 * local_steps * learning_rate * (plan.clip_norm + noise) / min(1.0, plan.head_weight)


def size_problem(declared_units: int, nominal_units: int) -> str | None:
    """Why a server takes no institution of that declared size; None: it does.

    The size bounds an institution's update (`update_norm_bound`: 62 at 2,000 units, 84,500 at one, under the default
    plan) and may weigh it. Who could declare any would own the mean alone.
    """
    if nominal_units <= declared_units * _MOST_TIMES and declared_units <= nominal_units * _MOST_TIMES:
        return None
    return (
        f"declared_units = {declared_units} must be within {_MOST_TIMES} times local.nominal_units = {nominal_units}, "
        "up or down; set that to what an institution of this study usually has"
    )
