"""The loss on an answer's tokens. Logits are computed for a few tokens at a time, and for no others.

Logits are the memory of a language model: 2,048 tokens of 49,152 words take 403 MB, several times over in a backward
pass. And the number of answer tokens in a micro-batch is private: if all of them went through one product, companions
would choose the kernel that multiplies a row. So each row goes through the head alone, 32 tokens at a time, filled up.

Shapes: B examples, T tokens, H size of a state, V words of the vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from confide.common.generation import IGNORED

_CHUNK = 32  # tokens whose logits are held at once

Logits = Callable[[Tensor], Tensor]


def answer_losses(states_BTH: Tensor, targets_BT: Tensor, logits: Logits) -> tuple[Tensor, Tensor]:
    """Return the summed cross-entropy of each example's own targets, and how many they are.

    Args:
        states_BTH: the state from which each token is predicted.
        targets_BT: the token to predict there, or `IGNORED`.
        logits: gives the logits of states, ``(32, H)`` to ``(32, V)``; frozen.

    Returns:
        Two tensors of shape ``(B,)``, float32 and integers.
    """
    sums = []
    for states_TH, targets_T in zip(states_BTH, targets_BT, strict=True):
        places = (targets_T != IGNORED).nonzero().squeeze(1)
        missing = -len(places) % _CHUNK
        states = torch.nn.functional.pad(states_TH[places], (0, 0, 0, missing))
        targets = torch.nn.functional.pad(targets_T[places], (0, missing), value=IGNORED)
        total = (states_TH[:1] * 0).float().sum()  # so that an example without targets has a gradient, zero
        for start in range(0, len(states), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            total = total + _chunk_loss(states[chunk], targets[chunk], logits)
        sums.append(total)
    return torch.stack(sums), (targets_BT != IGNORED).sum(dim=1)


def _chunk_loss(states: Tensor, targets: Tensor, logits: Logits) -> Tensor:
    if torch.is_grad_enabled() and states.requires_grad:
        loss: Tensor = _ChunkLoss.apply(states, targets, logits)  # type: ignore[no-untyped-call]
        return loss
    return _cross_entropy(states, targets, logits)


def _cross_entropy(states: Tensor, targets: Tensor, logits: Logits) -> Tensor:
    return torch.nn.functional.cross_entropy(logits(states).float(), targets, ignore_index=IGNORED, reduction="sum")


class _ChunkLoss(torch.autograd.Function):
    """The loss of a chunk. Its gradient is taken at once, so that no logits wait for the backward pass."""

    @staticmethod
    def forward(context: Any, states: Tensor, targets: Tensor, logits: Logits) -> Tensor:
        with torch.enable_grad():
            own = states.detach().requires_grad_()
            loss = _cross_entropy(own, targets, logits)
            [context.gradient] = torch.autograd.grad(loss, own)
        return loss.detach()

    @staticmethod
    def backward(context: Any, backprop: Tensor) -> tuple[Tensor, None, None]:
        return backprop.to(context.gradient.dtype) * context.gradient, None, None
