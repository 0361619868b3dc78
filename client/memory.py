"""Whether a step fits into this machine's memory, whatever it draws; found out before a run, on made-up texts."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from confide.client.batches import BatchedUnits, batch_units
from confide.client.units import UnitTable
from confide.common.adapter import coordinate_weights, schema
from confide.common.batches import Batch, Example, collate, padded_length
from confide.common.errors import InputError
from confide.common.privacy.coins import Coins
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.step import private_step
from confide.common.warm_model import WarmModel, forget_models

Shape = tuple[int, int]  # rows of a micro-batch, and their length

# Whatever the plan of a run: memory does not depend on it, and a step without privacy takes less.
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


def try_fullest(model: WarmModel, tokens_per_micro_batch: int) -> None:
    """Take a private step of the two `fullest` micro-batches; once for each model and bound on tokens.

    Guarantee: what does not fit is refused for every data set alike. Else an institution would decline just those
    rounds that draw many units, or long ones, and so tell which they are.

    Raises:
        InputError: the memory does not suffice.
    """
    if tokens_per_micro_batch in model.tried:
        return
    shapes = fullest(batch_units(UnitTable([]), model, tokens_per_micro_batch), padded_length(model.task.max_length))
    units = _MadeUp(model, model.task.encode(model.task.made_up(0, 0), model.tokenizer), shapes)
    weights_P = coordinate_weights(schema(model.module), head_weight=1.0).to(model.device)
    model.wrapped.enable_hooks()
    try:
        private_step(_PLAN, Coins.fresh(), units, model.wrapped, model.losses, weights_P)
        model.tried.add(tokens_per_micro_batch)
        return
    except (MemoryError, RuntimeError) as error:  # PyTorch's are RuntimeErrors, of a GPU's memory too
        said = (str(error) or type(error).__name__).splitlines()[0]
    forget_models()  # here, where the error is gone: its frames and Opacus' hooks hold activations of the step
    rows, length = units.shape
    remedy = "lower it" if rows > 1 else "only a smaller task.max_length takes less"
    raise InputError(
        f"tokens_per_micro_batch = {tokens_per_micro_batch}: no step can be taken of {rows} rows of {length} tokens "
        f"({said[:200]}); {remedy}, or free memory"
    )


def fullest(units: BatchedUnits, longest: int) -> list[Shape]:
    """Two micro-batches, one of which takes as much memory as any that ``units`` can make, whatever its table holds.

    The first has as many rows as there can be, the second rows as long as can be; the other number is what the bound
    on tokens leaves, rounded up. R rows of length L take a * R * L (hidden states) + b * R * L**2 (attention weights)
    + c * R (gradients), whatever a, b and c are. Along R * L = tokens that is convex in L, so most at one of the two
    ends, and both ends lie within what is tried; a row that is longer than the bound is alone, and within the second.

    Args:
        units: gives the bounds on tokens and on rows.
        longest: padded length of the longest rows.
    """
    tokens, most = units.tokens_per_micro_batch, units.most_rows(padded_length(1))
    return [(most, min(longest, math.ceil(tokens / most))), (min(units.max_rows, math.ceil(tokens / longest)), longest)]


@dataclass
class _MadeUp:
    """Units that give a micro-batch of each shape, whichever are drawn.

    The first unit of each has two examples, so that a step adds examples up, and its first row is padded, so that a
    step masks: both take memory.

    Attributes:
        shape: of the micro-batch that was given last.
    """

    model: WarmModel
    text: Example
    shapes: list[Shape]
    num_units: int = 1
    shape: Shape = (0, 0)

    def micro_batches(self, drawn: list[int]) -> Iterator[tuple[Batch, list[int]]]:
        first = 0
        for shape in self.shapes:
            self.shape = rows, length = shape
            sizes = [length - 1] + [length] * (rows - 1)
            examples = [{**self.text, "input_ids": self.text["input_ids"][:size]} for size in sizes]
            batch = collate(examples, length, self.model.pad_token_id, self.model.device)
            yield batch, [first + unit for unit in (0, *range(rows - 1))]
            first += rows
