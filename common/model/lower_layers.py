"""The layers below the lowest adapted one: frozen, so their output for a text never changes and is computed once."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from confide.common.methods import is_added


class _Reached(Exception):
    """The lowest adapted layer was reached: nothing above it is needed."""


class LowerLayers:
    """A switch on a model's lower layers: they compute, or give states that were computed before.

    The model does everything else as always, masks and positions included. So this holds for every architecture whose
    layers pass one tensor of hidden states to the next.

    Attributes:
        texts: of an example, which pass one after the other. The states of each are a part of the last dimension.
        hidden_size: of the states between two layers.
    """

    texts = 1

    def __init__(self, module: nn.Module, layers: nn.ModuleList, below: int) -> None:
        self._module, self._lowest_adapted = module, layers[below]
        self._given: tuple[Tensor, ...] = ()  # the states of each text
        self._turn = -1  # the text that passes now
        self._gives_tuple = False  # some architectures' layers do
        for number, layer in enumerate(layers[:below]):
            layer.forward = functools.partial(self._forward, number == 0, layer.forward)
        self.hidden_size = self.states(self._probe).shape[-1]

    def _probe(self) -> Tensor:
        """Return the model's output for three tokens, the last one masked."""
        ids = torch.zeros(1, 3, dtype=torch.long, device=next(self._module.parameters()).device)
        output: Tensor = self._module(input_ids=ids, attention_mask=torch.tensor([[1, 1, 0]], device=ids.device))
        return output

    def is_exact(self) -> bool:
        """Return whether the model gives the same output when lower layers compute and when their states are given."""
        states = self.states(self._probe)
        with torch.no_grad():
            computed = self._probe()
            with self.given(states):
                return torch.equal(computed, self._probe())

    def _forward(self, first: bool, compute: Callable[..., Any], *inputs: Any, **named: Any) -> Any:  # noqa: FBT001
        if self._given:
            self._turn = (self._turn + first) % len(self._given)
            states = self._given[self._turn]
            return (states,) if self._gives_tuple else states
        output = compute(*inputs, **named)
        self._gives_tuple = isinstance(output, tuple)
        return output

    def states(self, forward: Callable[[], object]) -> Tensor:
        """Return the input of the lowest adapted layer, shape ``(B, T, hidden)``; the forward pass ends there."""
        caught: list[Tensor] = []

        def stop(_: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            caught.append(inputs[0] if inputs else named["hidden_states"])
            raise _Reached

        hook = self._lowest_adapted.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with torch.no_grad():
                forward()
        except _Reached:
            pass
        finally:
            hook.remove()
        return caught[0]

    @contextmanager
    def given(self, states: Tensor) -> Iterator[None]:
        """Let lower layers give ``states``, ``(B, T, texts * hidden)``, within the block, whatever the tokens are."""
        self._given, self._turn = states.chunk(self.texts, dim=-1), -1
        try:
            yield
        finally:
            self._given = ()


def find_lower_layers(module: nn.Module) -> LowerLayers | None:
    """Return the lower layers of a module if all that is added sits in the upper part of one stack, else None.

    Where nothing is added (the head alone is trained), they are all layers but the last one.
    """
    added = {id(value) for name, value in module.named_parameters() if value.requires_grad and is_added(name)}
    for stack in module.modules():
        if not isinstance(stack, nn.ModuleList):
            continue
        inside = [number for number, layer in enumerate(stack) for p in layer.parameters() if id(p) in added]
        lowest = min(inside, default=len(stack) - 1)
        if len(inside) == len(added) and lowest > 0:
            return _if_exact(module, stack, lowest)
    return None


def _if_exact(module: nn.Module, stack: nn.ModuleList, below: int) -> LowerLayers | None:
    """Return None for an architecture whose layers pass on several tensors (DeBERTa) or are no whole layers (XLM)."""
    try:
        lower = LowerLayers(module, stack, below)
        return lower if lower.is_exact() else None
    except Exception:  # noqa: BLE001 - each architecture fails in its own way
        return None
