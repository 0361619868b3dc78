"""Per-example gradients by Opacus, gathered to one mean gradient per unit.

Shapes: B examples of a micro-batch, U units, P trainable parameters (all tensors flattened and joined).
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, ClassVar

import torch
from opacus import GradSampleModule
from torch import Tensor, nn


def _linear_gradients(layer: nn.Linear, activations: list[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
    """Per-example gradients of a linear layer in float32, whatever precision the forward pass used.

    Opacus' own rule multiplies in the precision of ``backprops``. One batched product costs as much as without privacy.
    """
    inputs = activations[0].float().reshape(len(backprops), -1, layer.in_features)
    outputs = backprops.float().reshape(len(backprops), -1, layer.out_features)
    gradients: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad:
        gradients[layer.weight] = torch.bmm(outputs.transpose(1, 2), inputs)
    if layer.bias is not None and layer.bias.requires_grad:
        gradients[layer.bias] = outputs.sum(dim=1)
    return gradients


class _OurRules(GradSampleModule):  # type: ignore[misc]
    """Opacus with our rule for linear layers, which Opacus' own table would give to the whole process."""

    GRAD_SAMPLERS: ClassVar[dict[Any, Any]] = {**GradSampleModule.GRAD_SAMPLERS, nn.Linear: _linear_gradients}


def wrap(module: nn.Module) -> GradSampleModule:
    """Attach Opacus' hooks to a module that is already on its device.

    Raises:
        ValueError: a trained layer that is not linear, or has dropout, or is in eval mode: Opacus silently gives none.
    """
    for name, layer in module.named_modules():
        own = [parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad]
        if own and not (isinstance(layer, nn.Linear) and layer.training):
            raise ValueError(f"trainable layer {name!r} ({type(layer).__name__}) must be nn.Linear in train mode")
        if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0:
            raise ValueError(f"dropout of {name!r} is {layer.p}, must be 0")
        if isinstance(layer, nn.modules.batchnorm._NormBase):
            raise ValueError(f"layer {name!r} ({type(layer).__name__}) takes statistics over a batch, must not")
    # The lowest adapted layer's input needs no gradient; torch then hooks its output, which is all Opacus reads.
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    # The loss is a sum over examples. Not strict: Opacus refuses every buffer, and position ids are one.
    return _OurRules(module, batch_first=True, loss_reduction="sum", strict=False)


def per_example_gradients(module: GradSampleModule, losses: Callable[[Any], Tensor], batch: Any) -> Tensor:
    """Gradient of each example's loss.

    Args:
        module: a wrapped module with its hooks enabled.
        losses: gives one loss per example, shape ``(B,)``; an example's loss depends on that example only.
        batch: a micro-batch, opaque to this module.

    Returns:
        Float32 tensor of shape ``(B, P)`` in the order of ``module.parameters()``.

    Raises:
        RuntimeError: a trained layer is also applied to something that is not split by examples (DeBERTa shares its
            projections with position embeddings): that gradient, of all examples, would land in one row.
    """
    losses_B = losses(batch)
    for layer in module.modules():
        for captured in getattr(layer, "activations", ()):  # what Opacus' forward hook keeps, a list for each use
            if any(len(tensor) != len(losses_B) for tensor in captured):
                raise RuntimeError("a trained layer is used on something else than one row for each example")
    losses_B.sum().backward()  # type: ignore[no-untyped-call]
    rows = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            rows.append(parameter.grad_sample.flatten(start_dim=1).float())
            parameter.grad_sample = parameter.grad = None
    return torch.cat(rows, dim=1)


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
    open_unit, open_sum_P, open_count = -1, torch.zeros(0, dtype=torch.float64), 0
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
