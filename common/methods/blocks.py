"""Small blocks of linear layers that methods add."""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two linear layers with a ReLU between them, added to the states that they read."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(size, width), nn.Linear(width, size)

    def forward(self, states: Tensor) -> Tensor:
        """Return changed states of shape ``(B, T, size)`` in their own precision."""
        change: Tensor = self.up(torch.relu(self.down(states.float())))
        return (states.float() + change).to(states.dtype)
