"""The layers that may be trained beside linear ones, each with its rule for per-example gradients.

Shapes: B examples of a micro-batch, T positions of a row, D numbers of a state, V virtual tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Scale(nn.Module):
    """Multiply every state by one vector, which starts at 1."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, states: Tensor) -> Tensor:
        """Return states of shape ``(B, T, D)`` in their own precision."""
        return (states.float() * self.scale).to(states.dtype)


class Shift(nn.Module):
    """Add one vector to every state; it starts at 0."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(size))

    def forward(self, states: Tensor) -> Tensor:
        """Return states of shape ``(B, T, D)`` in their own precision."""
        return (states.float() + self.shift).to(states.dtype)


class VirtualTokens(nn.Module):
    """Give the same trained vectors to every row of a micro-batch."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(count, size))

    def forward(self, rows: Tensor) -> Tensor:
        """Return ``(B, V, D)`` for any tensor with B rows; Opacus counts the rows of what a layer is given."""
        return self.vectors.expand(len(rows), -1, -1)


def scale_gradients(layer: Scale, states: Tensor, backprops: Tensor) -> dict[Tensor, Tensor]:
    """Return the gradient of each row of ``(B, ..., D)``: the sum over its positions of state times error."""
    products = states.float() * backprops.float()
    return {layer.scale: products.reshape(len(products), -1, products.shape[-1]).sum(dim=1)}


def shift_gradients(layer: Shift, _: Tensor, backprops: Tensor) -> dict[Tensor, Tensor]:
    """Return the gradient of each row of ``(B, ..., D)``: the sum of the errors at its positions."""
    errors = backprops.float()
    return {layer.shift: errors.reshape(len(errors), -1, errors.shape[-1]).sum(dim=1)}


def token_gradients(layer: VirtualTokens, _: Tensor, backprops: Tensor) -> dict[Tensor, Tensor]:
    """Return the gradient of each row: the error at its own virtual tokens, ``(B, V, D)``."""
    return {layer.vectors: backprops.float()}


Rule = Callable[[Any, Tensor, Tensor], dict[Tensor, Tensor]]
RULES: dict[type[nn.Module], Rule] = {Scale: scale_gradients, Shift: shift_gradients, VirtualTokens: token_gradients}
