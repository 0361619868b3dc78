"""The gate: an untrusted state against its schema. Both ends use it, before anything else looks at the bytes."""

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from confide.common.privacy.plan import NoPrivacy, Plan, PrivacyPlan
from confide.common.tensors import Schema, State, norm_of

# Of a state from the server. The guarantee holds for any weights, but larger weights let a rounding error grow further.
# AdamW moves a coordinate by at most about the learning rate: by 1.5 over 60 rounds at 5e-2, falling to 0. The 184,000
# numbers of a rank-8 adapter on 30 layers then have a norm of 640. Measured: 17 after 5 rounds of 37,634 numbers.
RECEIVED_NORM_BOUND = 1000.0
# Of a finished adapter. Nothing is trained on it. Its head is on the base's states as they are, and a base with states
# of a hundredth makes a head of norm 100 one of 10,000.
FINISHED_NORM_BOUND = 1e6
# Of a gradient without privacy, which an institution scales back to it: the Hugging Face Trainer's own `max_grad_norm`.
# Large first gradients stay in the second moment of AdamW for tens of steps: F1 of `persons` was 0.38 without this
# bound, and 0.47 with it (docs/decisions.md).
PLAIN_NORM_BOUND = 1.0
_MAX_TIMES = 20  # an institution may be so many times larger or smaller than the run's public `nominal_units`
_HEADER_ALLOWANCE = 256  # bytes a tensor may take in a safetensors header


class GateError(Exception):
    """The short reason for which a state was dropped, without any of its content."""


def load_state(payload: bytes, shapes: Schema, norm_bound: float) -> State:
    """Return untrusted bytes as a state.

    Args:
        payload: safetensors bytes from the other end.
        shapes: exactly the names and shapes that the state must have.
        norm_bound: bound on the L2 norm over all tensors.

    Returns:
        The state in the order of ``shapes``, float32, finite, within the bound.

    Raises:
        GateError: anything else.
    """
    tensors = load_tensors(payload, {name: ("float32", shape) for name, shape in shapes.items()})
    return bounded(tensors, norm_bound)


def load_tensors(payload: bytes, form: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, NDArray[Any]]:
    """Return untrusted bytes as tensors of exactly these names, types and shapes, in that order; else `GateError`."""
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


def fields_of(payload: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file that `load_tensors` has read."""
    size = int.from_bytes(payload[:8], "little")
    return dict(json.loads(payload[8 : 8 + size]).get("__metadata__") or {})


def bounded(state: State, norm_bound: float) -> State:
    """Return a state whose L2 norm over all tensors is finite and within the bound; else raise `GateError`."""
    if not norm_of(state) <= norm_bound:  # also false for nan
        raise GateError("norm: not finite, or above the bound")
    return state


def update_norm_bound(plan: Plan, shapes: Schema, local_steps: int, learning_rate: float) -> float:
    """Return a bound that no honest update passes: ten times the norm that clip and noise allow at the declared size.

    The noise of the head is divided by ``head_weight``, so the bound divides by it for every coordinate.
    """
    if isinstance(plan, NoPrivacy):
        return 10 * local_steps * learning_rate * PLAIN_NORM_BOUND
    size = sum(math.prod(shape) for shape in shapes.values())
    noise = plan.noise_stddev * math.sqrt(size) / plan.expected_batch_size
    return 10 * local_steps * learning_rate * (plan.clip_norm + noise) / min(1.0, plan.head_weight)


def sum_norm_bound(plan: PrivacyPlan, num_members: int, size: int, learning_rate: float) -> float:
    """Return a bound that no honest sum passes: ten times the norm that clip and shared noise allow.

    Args:
        plan: of all members together: its ``declared_units`` are the sum of theirs.
        num_members: of the sum; each adds a share of the noise.
        size: numbers of the adapter.
        learning_rate: of the local step.

    Raises:
        ValueError: the plan shares no noise.
    """
    if plan.sharing is None:
        raise ValueError("the plan shares no noise")
    deviation = math.sqrt(num_members * plan.sharing.share_variance * size) / 2.0**plan.sharing.grid_bits
    noise = plan.clip_norm * deviation / plan.expected_batch_size
    return 10 * learning_rate * (plan.clip_norm + noise) / min(1.0, plan.head_weight)


def size_problem(declared_units: int, nominal_units: int) -> str | None:
    """Return the reason for which a server takes no institution of that declared size; None if it takes it.

    The size bounds an institution's update (`update_norm_bound`: 62 at 2,000 units, 84,500 at one, under the default
    plan) and may weigh it. An institution that could declare any size would control the mean alone.
    """
    if nominal_units <= declared_units * _MAX_TIMES and declared_units <= nominal_units * _MAX_TIMES:
        return None
    return (
        f"declared_units = {declared_units} must be within {_MAX_TIMES} times local.nominal_units = {nominal_units}, "
        "up or down; set that to what an institution of this study usually has"
    )
