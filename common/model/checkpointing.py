"""Gradient checkpointing: layers keep their input alone, and compute the rest again in the backward pass."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from confide.common.errors import InputError
from confide.common.methods import is_added


def checkpoint_layers(base: Any) -> None:
    """Let a base with an adapter compute its layers again in the backward pass.

    Opacus counts a layer's forward and backward passes. Only the reentrant form passes forward once with hooks that
    count; in the other form every per-example gradient is missing (transformers' default; seen with Opacus 1.6).

    Args:
        base: a transformers model whose layers hold an adapter.

    Raises:
        InputError: the family has no checkpointing.
    """
    if not base.supports_gradient_checkpointing:
        raise InputError(
            f"checkpointing = true: models of type {base.config.model_type!r} have no gradient checkpointing; leave "
            "it out, or use another base"
        )
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)  # old names
    base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    warnings.filterwarnings("ignore", message="None of the inputs have requires_grad=True")  # of layers below
    for layer in _lowest_adapted(base):
        layer.register_forward_pre_hook(_begin_gradients, with_kwargs=True)


def _lowest_adapted(base: nn.Module) -> list[nn.Module]:
    """Return the lowest layer with a trained parameter of each stack: an encoder and a decoder are two."""
    found = []
    for stack in base.modules():
        if isinstance(stack, nn.ModuleList):
            adapted = (layer for layer in stack if any(is_added(name) for name, _ in layer.named_parameters()))
            found += [layer for layer in [next(adapted, None)] if layer is not None]
    return found


def _begin_gradients(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    """Make a layer's states require a gradient: a reentrant checkpoint without such an input has none to give."""
    states: Tensor = given[0] if given else named.pop("hidden_states")
    if torch.is_grad_enabled() and not states.requires_grad:
        states = states.detach().requires_grad_()
    return (states, *given[1:]), named
