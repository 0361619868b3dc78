"""A trial of every shape of a micro-batch before a run: memory must suffice, and every row give the same bits.

A server chooses the weights, so it can amplify the last bit of a gradient to a whole clip norm. Some kernels add in an
order that follows from the number of rows, or from a row's place. They would let one unit decide the last bits of all
others. The code does not show which kernels a machine takes; so every shape is tried, on made-up texts.
"""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import torch

from confide.client.training.operations import computed_by_vector, fill_vectors, filling_threads, follow_from_shape
from confide.client.training.tried_rows import (
    NOTHING,
    batch_of,
    bits_of,
    clipped_rows,
    made_up_rows,
    texts,
    trial_weights,
)
from confide.common.data.batches import Example, length, shortened
from confide.common.data.shapes import Shape, Shapes, one_row_each, public_shapes
from confide.common.errors import InputError
from confide.common.model.adapter import get_state, schema, set_state
from confide.common.model.memory import MAX_GRADIENT_NUMBERS
from confide.common.model.warm_model import WarmModel, forget_models

_lowered = dict[int, int]()  # number of threads that a trial took -> the number that it found
_ALONE = (1,)  # rows of each micro-batch


class Sight(NamedTuple):
    """The view of one made-up row under some weights.

    Attributes:
        padded: its padded length.
        number: 0 for the row that fills that length, 1 for a short one.
        weights: "usual" or "largest".
        way: its clipped "gradient", or the "prefix" that is kept of it.
    """

    padded: int
    number: int
    weights: str
    way: str


Seen = dict[Sight, dict[Shape, set[bytes]]]  # hashes of the outcomes, for each shape


def tried_shapes(model: WarmModel, tokens_per_micro_batch: int) -> Shapes:
    """Return the shapes in which this machine gives a unit's gradient bit for bit; tried once for a model and a bound.

    Every shape goes through gradient, unit mean and clip, under usual weights and under weights of the largest norm
    that an institution accepts. Its rows are made-up texts, each in several places and among several others. A model
    whose operations follow from the numbers (a mixture of experts) computes every row alone. On a CPU, this process
    takes as many threads as split the fullest shapes into whole vectors, until another model is asked for. A smaller
    shape that they split otherwise is not used.

    Guarantee: a shape that does not fit into memory is refused for every data set alike. Otherwise an institution
    would decline just those rounds that draw many units, or long ones, and so tell which they are.

    Raises:
        InputError: the memory does not suffice for some shape, or a row has other bits when it is read again.
    """
    if model.copies:
        return _tried_everywhere(model, tokens_per_micro_batch)
    now = torch.get_num_threads()
    most = _lowered.get(now, now)  # the model before this one may have needed fewer
    setting = (tokens_per_micro_batch, most)
    if setting not in model.tried:
        model.tried[setting] = _trial(model, *setting)
    shapes, threads = model.tried[setting]
    if threads < most:
        _lowered[threads] = most
    _take(threads)
    return shapes


def _trial(model: WarmModel, tokens_per_micro_batch: int, threads: int) -> tuple[Shapes, int]:
    """Return the shapes that pass, and the number of threads with which they do: at most so many."""
    _take(threads)
    longest, size = model.task.max_length, sum(value.size for value in get_state(model.module).values())
    asked = public_shapes(longest, tokens_per_micro_batch, max(1, MAX_GRADIENT_NUMBERS // size))
    seen = _try(model, asked, f"tokens_per_micro_batch = {tokens_per_micro_batch}")
    sizes = {shape: computed_by_vector(model, texts(model, shape, 0)) for shape in asked.all()}
    fullest = {size for padded, (full, *_) in asked.by_length.items() for size in sizes[full, padded]}
    if (filling := filling_threads(fullest, threads)) < threads:
        return _trial(model, tokens_per_micro_batch, filling)
    uneven = {shape for shape, of in sizes.items() if not fill_vectors(of, threads)}
    small = (4, asked.padded(min(longest, 64)))  # fits wherever a step does
    follows = follow_from_shape(model, *(texts(model, small, first) for first in (0, 4)))
    shapes = agreeing(asked, seen, uneven) if follows else one_row_each(longest)
    _require_same_again(model, shapes)
    return shapes, threads


def _require_same_again(model: WarmModel, shapes: Shapes) -> None:
    """Refuse a model that gives a row other bits when it reads it again: it draws numbers, or remembers what it read.

    Either way a unit's gradient would depend on how many units were read before it. Rows with others beside them were
    read several times and compared. A row that stays alone was not, so here every length is read, and then once more.

    Raises:
        InputError: the bits differ.
    """
    alone = [padded for padded, rows in shapes.by_length.items() if rows == _ALONE]
    before = get_state(model.module)
    set_state(model.module, trial_weights(schema(model.module))["usual"])

    def read() -> list[bytes]:
        rows = ((shortened(model.made_up(0, 0), padded), padded) for padded in alone)
        return [bits_of(clipped_rows(model, batch_of(model, [row], padded))[0]) for row, padded in rows]

    changes = read() != read()
    set_state(model.module, before)
    if changes:
        raise InputError(
            f"the base gives a text other gradients when {model.device} computes it again, alone and with the same "
            "weights: it draws random numbers, or keeps what it has read; use another base or another device"
        )


def _take(threads: int) -> None:
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)


def _tried_everywhere(model: WarmModel, tokens_per_micro_batch: int) -> Shapes:
    """Return the shapes that every device may use; all are tried at once and in threads, as a step takes them."""
    devices = (replace(model, copies=()), *model.copies)
    with ThreadPoolExecutor(len(devices)) as pool:
        first, *others = pool.map(lambda each: tried_shapes(each, tokens_per_micro_batch), devices)
    common = {
        padded: tuple(rows for rows in usable if all(rows in other.by_length[padded] for other in others))
        for padded, usable in first.by_length.items()
    }
    return Shapes({padded: usable or _ALONE for padded, usable in common.items()})


def agreeing(asked: Shapes, seen: Seen, uneven: set[Shape]) -> Shapes:
    """Return the tried shapes that may be used.

    A shape is not used if it is uneven, or any row differs between two of its places. The full shape of a padded length
    is the measure: a shape in which any row came out differently is not used. If the full shape is not used, or a row
    has no gradient to compare under usual weights, every row of that length is computed alone.
    """
    torn = uneven | {shape for by_shape in seen.values() for shape, bits in by_shape.items() if len(bits) > 1}

    def usable(padded: int) -> tuple[int, ...]:
        full, *others = ((rows, padded) for rows in asked.by_length[padded])
        own = {sight: by_shape for sight, by_shape in seen.items() if sight.padded == padded}
        usual = (of for sight, of in own.items() if sight.weights == "usual")
        shows = all(by_shape[full] != {NOTHING} for by_shape in usual)
        if full in torn or not shows:
            return _ALONE
        same = (shape for shape in others if all(by_shape[shape] == by_shape[full] for by_shape in own.values()))
        return tuple(rows for rows, _ in (full, *(shape for shape in same if shape not in torn)))

    return Shapes({padded: usable(padded) for padded in asked.by_length})


def _try(model: WarmModel, shapes: Shapes, setting: str) -> Seen:
    """Return the outcomes of every shape."""
    before, shape = get_state(model.module), (1, max(shapes.by_length))
    seen: Seen = defaultdict(lambda: defaultdict(set))
    model.wrapped.enable_hooks()
    try:
        made_up = made_up_rows(model, shapes)
        for weights, state in trial_weights(schema(model.module)).items():
            set_state(model.module, state)
            for shape in shapes.all():
                for number, way, bits in _outcomes(model, made_up[shape[1]], shape, alike=weights == "usual"):
                    seen[Sight(shape[1], number, weights, way)][shape].add(bits)
        set_state(model.module, before)
        return seen
    except (MemoryError, RuntimeError) as error:  # PyTorch's are RuntimeErrors, of a GPU's memory too
        said = (str(error) or type(error).__name__).splitlines()[0]
    forget_models()  # here, where the error is gone: its frames and Opacus' hooks hold activations of the step
    rows, tokens = shape
    remedy = "lower it" if rows > 1 else "only a smaller task.max_length takes less"
    raise InputError(
        f"{setting}: no step can be taken of {rows} rows of {tokens} tokens on {model.device} ({said[:200]}); "
        f"{remedy}, or free memory"
    )


def _outcomes(
    model: WarmModel, made_up: tuple[Example, Example], shape: Shape, *, alike: bool
) -> Iterator[tuple[int, str, bytes]]:
    """Yield number, way and hash of each row of micro-batches of one shape: two made-up rows, each at every place.

    In two micro-batches they take turns. If ``alike``, two more follow in which every row is the same: filled up as in
    a step, without padding, and without other rows.
    """
    rows, tokens = shape
    mixed = [[(first + row) % 2 for row in range(rows)] for first in (0, 1)]
    for numbers in mixed + [[number] * rows for number in (0, 1) if alike and rows > 1]:
        examples = [made_up[number] for number in numbers]
        batch = batch_of(model, examples, tokens)
        seen = {"gradient": clipped_rows(model, batch)}
        if model.lower is not None:
            seen["prefix"] = [states[: length(one)] for one, states in zip(examples, model.prefix(batch), strict=True)]
        for way, outcomes in seen.items():
            yield from ((number, way, bits_of(outcome)) for number, outcome in zip(numbers, outcomes, strict=True))
