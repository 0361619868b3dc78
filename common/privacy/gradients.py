"""Per-example gradients by Opacus, gathered to one mean gradient per unit.

Shapes: B examples of a micro-batch, U units, P trainable parameters (all tensors flattened and joined).
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from opacus import GradSampleModule
from opacus.grad_sample.utils import register_grad_sampler
from torch import Tensor, nn


@register_grad_sampler(nn.Linear)  # type: ignore[untyped-decorator]
def _linear_gradients(layer: nn.Linear, activations: list[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
    """Per-example gradients of a linear layer in float32, whatever precision the forward pass used.

    Opacus' own rule multiplies in the precision of ``backprops`` and does not visit an example's positions at once.
    One batched product costs the same multiplications as the summed gradient of training without privacy.
    """
    inputs = activations[0].float().reshape(len(backprops), -1, layer.in_features)
    outputs = backprops.float().reshape(len(backprops), -1, layer.out_features)
    gradients: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad:
        gradients[layer.weight] = torch.bmm(outputs.transpose(1, 2), inputs)
    if layer.bias is not None and layer.bias.requires_grad:
        gradients[layer.bias] = outputs.sum(dim=1)
    return gradients


def wrap(module: nn.Module) -> GradSampleModule:
    """Attach Opacus' hooks to a module that is already on its device.

    Raises:
        ValueError: a trainable parameter that sits in anything but a linear layer, or a module in eval mode or
            with dropout: Opacus silently gives such layers no per-example gradient, or a random one.
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
    return GradSampleModule(module, batch_first=True, loss_reduction="sum", strict=False)


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

    Args:
        parts: ``(gradients_BP, unit_B)`` for each micro-batch; the examples of a unit stand side by side, and
            may run on into the following micro-batches. The matrices are overwritten.

    Yields:
        Tensors of shape ``(U, P)``: one mean gradient for each unit that is complete. Each unit is yielded once,
        so it is clipped once (clipping it in two halves turns an epsilon of 3.00 into 8.54).

    Raises:
        RuntimeError: a unit comes back after it was complete.
    """
    finished: set[int] = set()
    open_unit, open_sum, open_count = -1, torch.zeros(0), 0
    for gradients_BP, unit_B in parts:
        order = list(dict.fromkeys(unit_B))
        if finished.intersection(order):
            raise RuntimeError("a unit's examples must stand side by side")
        if len(order) == len(unit_B):  # one example each: nothing to add up
            sums_UP, counts = gradients_BP, [1] * len(order)
        else:
            place = {unit: row for row, unit in enumerate(order)}
            rows = torch.tensor([place[unit] for unit in unit_B], device=gradients_BP.device)
            sums_UP = gradients_BP.new_zeros(len(order), gradients_BP.shape[1]).index_add_(0, rows, gradients_BP)
            counts = [unit_B.count(unit) for unit in order]
        if order[0] == open_unit:
            sums_UP[0] += open_sum
            counts[0] += open_count
        elif open_count:
            yield (open_sum / open_count).unsqueeze(0)
        finished.update([*order[:-1]], {open_unit} - {order[0]})
        if len(order) > 1:
            yield sums_UP[:-1].div_(torch.tensor(counts[:-1], device=sums_UP.device).unsqueeze(1))
        open_unit, open_sum, open_count = order[-1], sums_UP[-1].clone(), counts[-1]
        del gradients_BP, sums_UP  # before the next micro-batch is computed: a step's memory is that of its fullest one
    if open_count:
        yield (open_sum / open_count).unsqueeze(0)
