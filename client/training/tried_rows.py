"""Made-up rows for a trial: the weights under which they are read, and the bits that come of them."""

import hashlib
from itertools import pairwise

import numpy as np
from numpy.random import PCG64, Generator
from torch import Tensor

from confide.common.data.batches import Batch, Example, collate, shortened
from confide.common.data.shapes import Shape, Shapes
from confide.common.methods import is_added
from confide.common.model.adapter import coordinate_weights, schema, set_state
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.step import clipped_gradients
from confide.common.protocol.gate import RECEIVED_NORM_BOUND
from confide.common.tensors import Schema, State, norm_of

# Clipping acts on each row by itself under every plan of a run; so one plan stands for all.
_PLAN = PrivacyPlan(
    unit="record",
    sampling_probability=1.0,
    num_steps=1,
    declared_units=1,
    clip_norm=1.0,
    clipping="automatic",
    noise_multiplier=1.0,
    target_delta=1e-5,
)
_USUAL = 0.05  # standard deviation of weights under which no softmax is saturated: every gradient has digits to compare
NOTHING = b""  # hash of a row that is zero, and so shows nothing


def trial_weights(shapes: Schema) -> dict[str, State]:
    """Weights that a server might send: usual ones, and ones of nearly the largest norm, under which roundings grow."""
    stream = Generator(PCG64(0))
    usual = {name: (_USUAL * stream.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
    grown = [name for name in usual if is_added(name)] or list(usual)  # a large head leaves rows without a gradient
    factor = np.float32(0.998 * RECEIVED_NORM_BOUND / norm_of({name: usual[name] for name in grown}))
    return {"usual": usual, "largest": {**usual, **{name: factor * usual[name] for name in grown}}}


def made_up_rows(model: WarmModel, shapes: Shapes) -> dict[int, tuple[Example, Example]]:
    """Return two made-up rows of each padded length: one that fills it, and a short one whose gradient shows as much.

    A short row has more tokens than the next shorter length. A few may have no loss, and over one token a softmax has
    no gradient. So their number doubles until nearly as many numbers of the gradient as in the full row are not zero.
    """
    set_state(model.module, trial_weights(schema(model.module))["usual"])

    def shown(row: Example, padded: int) -> int:
        return int(clipped_rows(model, batch_of(model, [row], padded))[0].count_nonzero())

    rows = {}
    for shorter, padded in pairwise((0, *shapes.by_length)):
        full, other = (shortened(model.made_up(0, number), padded) for number in (0, 1))
        more = [shorter + 2**step for step in range(padded.bit_length()) if shorter + 2**step < padded - 1]
        short, least = (shortened(other, tokens) for tokens in (*more, padded - 1)), 0.9 * shown(full, padded)
        rows[padded] = (full, next((row for row in short if shown(row, padded) >= least), other))
    return rows


def texts(model: WarmModel, shape: Shape, first: int) -> Batch:
    """Return a micro-batch of made-up texts, numbered from ``first`` on; every other one is padded."""
    rows, tokens = shape
    return batch_of(model, [shortened(model.made_up(0, first + row), tokens - row % 2) for row in range(rows)], tokens)


def batch_of(model: WarmModel, examples: list[Example], tokens: int) -> Batch:
    """Return a micro-batch of some rows, each padded to so many tokens."""
    return collate(examples, tokens, model.pads, model.device)


def clipped_rows(model: WarmModel, batch: Batch) -> list[Tensor]:
    """Return the clipped gradient of each row, as a unit of its own."""
    weights_P = coordinate_weights(schema(model.module), head_weight=1.0).to(model.device)
    rows = list(range(len(batch["input_ids"])))
    parts = clipped_gradients(_PLAN, [(batch, rows)], model.wrapped, model.losses, weights_P)
    return [row_P for rows_UP in parts for row_P in rows_UP]


def bits_of(tensor: Tensor) -> bytes:
    """Return the hash of a tensor's bits; nothing for a tensor that is zero."""
    bits = tensor.float().add(0.0).cpu().contiguous().numpy()  # adding turns -0 into 0
    return hashlib.sha256(bits.tobytes()).digest() if bits.any() else NOTHING
