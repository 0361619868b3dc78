"""Per-example gradients by Opacus.

Shapes: B examples of a micro-batch, P trainable parameters (all tensors flattened and joined).
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from confide.common.privacy.layers import RULES, Scale, Shift, VirtualTokens


class _Wrapped(GradSampleModule):  # type: ignore[misc]
    """Opacus with our rules for trained layers, which Opacus' own table would give to the whole process."""

    rows = 0  # examples of the micro-batch whose gradients are computed

    def __init__(self, module: nn.Module) -> None:
        # The loss is a sum over examples. Not strict: `wrap` checks what may be trained, and says what is wrong.
        super().__init__(module, batch_first=True, loss_reduction="sum", strict=False)
        own = dict.fromkeys(RULES, self._own_gradients)
        self.GRAD_SAMPLERS = {**GradSampleModule.GRAD_SAMPLERS, nn.Linear: self._linear_gradients, **own}

    def _linear_gradients(self, layer: nn.Linear, activations: list[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
        """Per-example gradients of a linear layer in float32, whatever precision the forward pass used.

        Opacus' own rule multiplies in the precision of ``backprops``. One batched product costs as much as without
        privacy. The layer's rows are counted here, for a layer under checkpointing is seen in the backward pass alone.
        """
        self._require_rows(activations, backprops)
        inputs = activations[0].float().reshape(self.rows, -1, layer.in_features)
        outputs = backprops.float().reshape(self.rows, -1, layer.out_features)
        gradients: dict[Tensor, Tensor] = {}
        if layer.weight.requires_grad:
            gradients[layer.weight] = torch.bmm(outputs.transpose(1, 2), inputs)
        if layer.bias is not None and layer.bias.requires_grad:
            gradients[layer.bias] = outputs.sum(dim=1)
        return gradients

    def _own_gradients(
        self, layer: Scale | Shift | VirtualTokens, activations: list[Tensor], backprops: Tensor
    ) -> dict[Tensor, Tensor]:
        """Per-example gradients of a layer of `privacy.layers`, by the rule that stands beside it."""
        self._require_rows(activations, backprops)
        return RULES[type(layer)](layer, activations[0], backprops)

    def _require_rows(self, activations: list[Tensor], backprops: Tensor) -> None:
        """Refuse a layer whose inputs or errors are not split by examples: their gradients would land in one row."""
        if not len(activations[0]) == len(backprops) == self.rows:
            raise RuntimeError("a trained layer is used on something else than one row for each example")


def wrap(module: nn.Module) -> GradSampleModule:
    """Attach Opacus' hooks to a module that is already on its device.

    Raises:
        ValueError: a trained layer that has no rule here, or has dropout, or is in eval mode: Opacus silently gives
            none.
    """
    for name, layer in module.named_modules():
        own = [parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad]
        known = isinstance(layer, nn.Linear) or type(layer) in RULES
        if own and not (known and layer.training):
            raise ValueError(
                f"trainable layer {name!r} ({type(layer).__name__}) must be nn.Linear, or of `privacy.layers`, in "
                "train mode"
            )
        if isinstance(layer, nn.modules.dropout._DropoutNd) and layer.p > 0:
            raise ValueError(f"dropout of {name!r} is {layer.p}, must be 0")
        if isinstance(layer, nn.modules.batchnorm._NormBase):
            raise ValueError(f"layer {name!r} ({type(layer).__name__}) takes statistics over a batch, must not")
    # The lowest adapted layer's input needs no gradient; torch then hooks its output, which is all Opacus reads.
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    return _Wrapped(module)


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
            projections with position embeddings), so that gradients of all examples would land in one row; or it is
            used on none.
    """
    losses_B = losses(batch)
    module.rows = len(losses_B)
    losses_B.sum().backward()  # type: ignore[no-untyped-call]
    rows = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            sample = getattr(parameter, "grad_sample", None)
            if sample is None or sample.shape != (module.rows, *parameter.shape):
                raise RuntimeError(f"{name} has no gradient for each example: the loss does not pass its layer")
            rows.append(sample.flatten(start_dim=1).float())
            parameter.grad_sample = parameter.grad = None
    return torch.cat(rows, dim=1)
