"""Adversarial training: each text is learned as it is, and with its states moved to where its loss rises fastest.

The move is that of Miyato and others (arXiv 1605.07725), one step along the gradient, of a length in proportion to the
states. It is taken where an adapter's own layers begin, for what lies below them is frozen and kept.

The guarantee needs no more than that a loss depends on its own example and the weights, and it does. No layer mixes
rows, so the gradient of the sum of all losses at one row is that of the row's own loss. It is scaled by norms of the
same row alone. Both losses of an example are averaged before there is a gradient, so an example still has one, which is
clipped once. A mean over the micro-batch in any of this would break the guarantee. Shapes in which it does not come out
bit for bit are found by the trial, which takes these losses as the step does.
"""

from collections.abc import Callable

import torch
from opacus import GradSampleModule
from torch import Tensor

from confide.common.errors import InputError

_ENTRIES = 1024  # PyTorch would split a longer norm among threads for one row but not for two
_TINY = 1e-30  # for a row without any gradient, which is not moved


def adversarial_losses(
    losses: Callable[[Tensor], Tensor], states: Tensor, size: float, module: GradSampleModule
) -> Tensor:
    """Return the mean of each example's loss as it is and under the move.

    Args:
        losses: one for each row of states, shape ``(B,)``.
        states: the input of the lowest adapted layer, shape ``(B, T, hidden)``.
        size: length of the move over that of a row's states.
        module: whose hooks must not see the pass that looks for the move.
    """
    moved = states.float() + _move(losses, states.float(), size, module)
    return (losses(states) + losses(moved)) / 2


def require_adversarial(size: float, *, frozen_below: bool, checkpointing: bool) -> None:
    """Refuse adversarial training where no layer is frozen below the adapter, or where layers compute again.

    Raises:
        InputError: names the remedy; never for a size of 0, which is none.
    """
    if size and not frozen_below:
        raise InputError(
            f"local.adversarial = {size:g} moves what frozen layers put out, and this run has none below its adapter: "
            "use adapter.layers = 'top:3', or local.adversarial = 0 (the only way for prompts, prefixes, DeBERTa and "
            "encoder-decoders)"
        )
    if size and checkpointing:
        raise InputError(
            f"local.adversarial = {size:g} needs a gradient at a layer's input, which checkpointing does not give: use "
            "checkpointing = false, or local.adversarial = 0"
        )


def _move(losses: Callable[[Tensor], Tensor], states: Tensor, size: float, module: GradSampleModule) -> Tensor:
    enabled = module.hooks_enabled
    module.disable_hooks()
    try:
        with torch.enable_grad():
            given = states.detach().requires_grad_()
            [rises] = torch.autograd.grad(losses(given).sum(), given)
    finally:
        if enabled:
            module.enable_hooks()
    return rises * (size * _norms(states) / (_norms(rises) + _TINY))


def _norms(states: Tensor) -> Tensor:
    """Return the norm of each row over all of its tokens, shape ``(B, 1, 1)``, from norms of few entries each."""
    tokens = torch.linalg.vector_norm(_norms_of_parts(states), dim=2)
    whole: Tensor = torch.linalg.vector_norm(_norms_of_parts(tokens), dim=1)
    return whole[:, None, None]


def _norms_of_parts(numbers: Tensor) -> Tensor:
    """Return the norms of the last dimension, cut into parts of few entries."""
    parts = torch.split(numbers, _ENTRIES, dim=-1)
    return torch.stack([torch.linalg.vector_norm(part, dim=-1) for part in parts], dim=-1)
