"""Gradients of examples, gathered to one mean gradient per unit.

Shapes: B examples of a micro-batch, U units, P trainable parameters (all tensors flattened and joined).
"""

from collections.abc import Iterable, Iterator
from itertools import groupby

import torch
from torch import Tensor


def unit_means(parts: Iterable[tuple[Tensor, list[int]]]) -> Iterator[Tensor]:
    """Average examples to units, wherever a unit's examples fell.

    Formal guarantee: a unit's mean is a function of its own examples in their order, bit for bit. They are added one
    after the other in float64, whichever micro-batch each of them is in. In float32, in an order that other units
    decide, a server could make [G, -G, e] into e or into nothing, and one unit into 21 clip norms (docs/guarantee.md).

    Args:
        parts: ``(gradients_BP, unit_B)`` for each micro-batch; the examples of a unit stand side by side, and
            may run on into the following micro-batches. The matrices are overwritten.

    Yields:
        Tensors of shape ``(U, P)``, float32: one mean gradient for each unit that is complete. Each unit is yielded
        once, so it is clipped once (clipping it in two halves turns an epsilon of 3.00 into 8.54).

    Raises:
        RuntimeError: a unit comes back after it was complete.
    """
    finished: set[int] = set()
    open_unit, open_sum_P = -1, torch.zeros(0, dtype=torch.float64)
    open_count = 0
    for gradients_BP, unit_B in parts:
        runs = [(unit, len(list(run))) for unit, run in groupby(unit_B)]
        if open_count and runs[0][0] != open_unit:
            finished.add(open_unit)
            yield _mean(open_sum_P, open_count).unsqueeze(0)
            open_count = 0
        if len({unit for unit, _ in runs} - finished) < len(runs):
            raise RuntimeError("a unit's examples must stand side by side")
        open_sum_P, open_count = _average(gradients_BP, [count for _, count in runs], open_sum_P, open_count)
        open_unit = runs[-1][0]
        finished.update(unit for unit, _ in runs[:-1])
        if len(runs) > 1:
            yield gradients_BP[: len(runs) - 1]
        del gradients_BP  # before the next micro-batch is computed: a step's memory is that of its fullest one
    if open_count:
        yield _mean(open_sum_P, open_count).unsqueeze(0)


def _average(gradients_BP: Tensor, counts: list[int], sum_P: Tensor, added: int) -> tuple[Tensor, int]:
    """Write each complete unit's mean over the first rows; the last unit stays open, as the sum of so many examples.

    Args:
        gradients_BP: the examples of units in turn; overwritten.
        counts: how many examples each unit has here.
        sum_P: sum of the first unit's examples that came before, float64.
        added: how many those were.
    """
    row = 0
    for place, count in enumerate(counts):
        is_open = place == len(counts) - 1
        if count == 1 and not added and not is_open:
            gradients_BP[place] = gradients_BP[row]  # one example: nothing to add up
        else:
            sum_P = sum_P if added else torch.zeros_like(gradients_BP[0], dtype=torch.float64)
            for gradient_P in gradients_BP[row : row + count]:
                sum_P += gradient_P
            added += count
            if not is_open:
                gradients_BP[place], added = _mean(sum_P, added), 0
        row += count
    return sum_P, added


def _mean(sum_P: Tensor, count: int) -> Tensor:
    return (sum_P / count).float()
