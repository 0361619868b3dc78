"""Layers of ours within a frozen base, where PEFT's own would give no gradient for each example.

PEFT keeps the parameters of IA3, prompts and norms in dictionaries that are never called, so Opacus sees none of them.
Here each is a layer that is called on its rows (`privacy.layers`).
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from confide.common.errors import InputError
from confide.common.tasks.task import Task

LINEAR = (nn.Linear, Conv1D)  # Conv1D: GPT-2's linear layers, whose weights lie the other way round


class Extended(nn.Module):
    """A base with layers of ours in it. Its parameters have the same names as inside a PeftModel."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_model = nn.ModuleDict({"model": base})

    @property
    def config(self) -> Any:
        """The base's configuration."""
        return self.get_base_model().config

    def get_base_model(self) -> Any:
        """Return the base model, with the method's layers in it."""
        return self.base_model["model"]

    def forward(self, *given: Any, **named: Any) -> Any:  # the signature is the base's
        """Return the base's output."""
        return self.get_base_model()(*given, **named)


class Beside(nn.Module):
    """A layer of the base, and a layer of ours under the method's name, which changes its states.

    Some families read a layer's weight to learn its precision, so it can be read here too.
    """

    def __init__(self, layer: nn.Module, marker: str, added: nn.Module) -> None:
        super().__init__()
        self.layer, self._marker = layer, marker
        self.add_module(marker, added)

    @property
    def added(self) -> Any:
        """The layer of ours."""
        return self.get_submodule(self._marker)

    @property
    def weight(self) -> Any:
        """The weight of the base's layer."""
        return self.layer.weight

    @property
    def bias(self) -> Any:
        """The bias of the base's layer."""
        return self.layer.bias


class Behind(Beside):
    """Our layer takes what the base's layer gives."""

    def forward(self, states: Tensor) -> Any:
        """Return states as our layer changes them."""
        return self.added(self.layer(states))


class Before(Beside):
    """Our layer gives what the base's layer takes."""

    def forward(self, states: Tensor) -> Any:
        """Return what the base's layer makes of changed states."""
        return self.layer(self.added(states))


def stacks(module: nn.Module) -> list[nn.ModuleList]:
    """Return the stacks of layers; a list inside a layer is none."""
    found: list[nn.ModuleList] = []
    for child in module.children():
        found += [child] if isinstance(child, nn.ModuleList) else stacks(child)
    return found


def open_parts(base: nn.Module, layers: str, task: Task) -> Iterator[tuple[str, nn.Module]]:
    """Give the parts of a base, with their names, that a method may change.

    A head that is trained as a whole is left out, and so is what no loss passes.

    Args:
        base: without any adapter.
        layers: "all" parts, or those in the "top:N" layers of each stack.
        task: says what the loss passes.

    Raises:
        InputError: there are fewer layers.
    """
    closed = task.untrained_parts() | (task.head_parts() if task.native_head else frozenset())
    inside = None if layers == "all" else _top(base, layers)
    for name, part in list(base.named_modules()):
        if closed.isdisjoint(name.split(".")) and (inside is None or id(part) in inside):
            yield name, part


def _top(base: nn.Module, layers: str) -> set[int]:
    """Return the parts in the last layers of each stack, by identity."""
    count = int(layers.removeprefix("top:"))
    for stack in stacks(base):
        if len(stack) < count:
            raise InputError(f"adapter.layers = {layers!r}, but the base has {len(stack)} layers; use 'all'")
    return {id(part) for stack in stacks(base) for layer in list(stack)[-count:] for part in layer.modules()}


def feeds_forward(name: str, part: nn.Module, hidden: int) -> bool:
    """Return whether a part is the linear layer that ends a feed-forward block: from its wide states to the hidden."""
    narrow, wide = sizes_of(part) if isinstance(part, LINEAR) else (0, 0)
    in_attention = any("att" in piece.lower() for piece in name.split("."))  # Gemma's heads are wider than its states
    return not in_attention and wide > narrow == hidden


def sizes_of(layer: Any) -> tuple[int, int]:
    """Return the numbers of outputs and inputs of a linear layer."""
    return (layer.nf, layer.nx) if isinstance(layer, Conv1D) else (layer.out_features, layer.in_features)


def put(base: nn.Module, name: str, part: nn.Module) -> None:
    """Put a part into a base in place of the one of this name."""
    parent, _, last = name.rpartition(".")
    setattr(base.get_submodule(parent), last, part)


def changed_parts(base: nn.Module) -> list[tuple[str, Beside]]:
    """Return all parts of a base beside which a layer of ours lies, under the names that they have in the base."""
    return [(name, part) for name, part in base.named_modules() if isinstance(part, Beside)]


def scaled(layer: Any, scale: Tensor, *, inputs: bool) -> None:
    """Multiply the outputs of a linear layer, or its inputs, by a vector, in the layer's own weights."""
    by_rows = inputs == isinstance(layer, Conv1D)  # a Conv1D's rows are its inputs
    layer.weight.data *= scale.unsqueeze(1) if by_rows else scale
    if layer.bias is not None and not inputs:
        layer.bias.data *= scale
