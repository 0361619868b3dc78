"""The form in which a state travels, in both directions: as it is, or with fewer bits for each number.

"float32" is safetensors by name. "float16" and "int8" are two tensors, for each further one would cost 100 bytes of
header. ``scales`` holds the largest absolute value of each tensor, float32. ``values`` holds the numbers as shares of
it (in int8: 127ths), one after the other. Both go by the tensors' names in alphabetical order.

At an institution this is post-processing, and free. The input is the noised change of the adapter and nothing else:
scales and rounding are functions of it, no coin is drawn and no datum is read. Stochastic rounding needs numbers that
are independent of the numbers to be rounded: they come from a generator whose seed is a hash of the whole state. So a
state has one encoding. A server that returns asks with the same bytes, and an institution recognises the same question.
"""

import hashlib
import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import PCG64
from numpy.typing import NDArray
from safetensors.numpy import save

from confide.common.protocol.gate import GateError, bounded, load_state, load_tensors
from confide.common.tensors import Schema, State, dump_state

if TYPE_CHECKING:
    from confide.common.config.sections import FederationSection, Transfer

_LIMITS = {"float16": 1.0, "int8": 127.0}  # the value that a tensor's largest number becomes


def encode(state: State, transfer: "Transfer") -> bytes:
    """Return a state as bytes, whose number follows from the shapes alone; equal states give equal bytes.

    In "float16" a number's error is at most 2^-11 of itself or 2^-25 of its tensor's largest. In "int8" it is below
    1/127 of that largest, and 0 on average over states. A state that is not finite gives bytes that no gate accepts.
    """
    if transfer == "float32":
        return dump_state(state)
    parts = [np.asarray(state[name], dtype="<f4").ravel() for name in sorted(state)]
    flat_P = np.concatenate(parts)
    scales_T = np.array([np.abs(part).max(initial=0) for part in parts], dtype=np.float32)
    scales_P = np.repeat(scales_T.astype(np.float64), [part.size for part in parts])
    with np.errstate(all="ignore"):
        shares_P = flat_P / np.where(scales_P > 0, scales_P, 1.0) * _LIMITS[transfer]
        if transfer == "int8":
            shares_P = _round(shares_P, flat_P.tobytes())
        return save({"scales": scales_T, "values": shares_P.astype(transfer)})


def update_bytes(federation: "FederationSection", state: State) -> int:
    """Return the size of an update of a state's shapes as it travels, without envelope and signature.

    The adapter that an institution receives in each round has the same size, but for a secure sum: there an institution
    sends four bytes for each number, whatever ``transfer`` is.
    """
    if federation.aggregation == "secure-sum":
        return 4 * sum(value.size for value in state.values())
    return len(encode(state, federation.transfer))


def _round(values_P: NDArray[np.float64], seed: bytes) -> NDArray[np.float64]:
    """Round to one of the two nearest integers, to the upper with a probability that is the distance from the lower."""
    generator = PCG64(int.from_bytes(hashlib.sha256(seed).digest(), "big"))
    # Raw numbers: numpy promises that they stay the same in all versions, which it does not promise of a `Generator`.
    uniforms_P = (generator.random_raw(values_P.size) >> np.uint64(11)) * 2.0**-53  # in [0, 1)
    below_P = np.floor(values_P)
    rounded: NDArray[np.float64] = below_P + (uniforms_P < values_P - below_P)
    return rounded


def decode(payload: bytes, shapes: Schema, transfer: "Transfer", norm_bound: float) -> State:
    """Return untrusted bytes as a state, through the gate: `load_state` for every form.

    Raises:
        GateError: the tensors are not those of this form, scales or values are beyond the range of `encode`, or the
            norm is above the bound.
    """
    if transfer == "float32":
        return load_state(payload, shapes, norm_bound)
    names, limit = sorted(shapes), _LIMITS[transfer]
    sizes = [math.prod(shapes[name]) for name in names]
    tensors = load_tensors(payload, {"scales": ("float32", (len(names),)), "values": (transfer, (sum(sizes),))})
    with np.errstate(invalid="ignore"):  # signalling NaNs
        scales_T, values_P = tensors["scales"].astype(np.float64), tensors["values"].astype(np.float64)
    if not (np.isfinite(scales_T) & (scales_T >= 0)).all():
        raise GateError("scales: must be finite, and at least 0")
    if not (np.abs(values_P) <= limit).all():  # also false for nan
        raise GateError(f"values: must be within {limit:g}")
    flat_P = (values_P * np.repeat(scales_T, sizes) / limit).astype(np.float32)
    parts = dict(zip(names, np.split(flat_P, np.cumsum(sizes)[:-1]), strict=True))
    return bounded({name: parts[name].reshape(shapes[name]) for name in shapes}, norm_bound)
