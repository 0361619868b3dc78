"""The layers that may be trained beside linear ones: the gradient of each row is that of the row alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from confide.common.privacy.gradients import per_example_gradients, wrap
from confide.common.privacy.layers import RULES, Scale, Shift, VirtualTokens

_STATES = torch.linspace(-2, 3, 3 * 4 * 5).reshape(3, 4, 5)  # rows, positions, numbers
LAYERS: dict[str, nn.Module] = {"scale": Scale(5), "shift": Shift(5), "tokens": VirtualTokens(2, 5)}


class _Model(nn.Module):
    """A loss for each row of states through one layer; ``shared`` gives the layer one row for all."""

    def __init__(self, layer: nn.Module, *, shared: bool = False) -> None:
        super().__init__()
        self.layer, self.shared = layer, shared

    def forward(self, states: Tensor) -> Tensor:
        given: Any = self.layer(states[:1] if self.shared else states)
        return (given.expand(len(states), -1, -1).square() * torch.arange(1.0, 6.0)).sum(dim=(1, 2))


@pytest.mark.parametrize("name", LAYERS)
def test_a_rows_gradient_is_that_of_the_row_alone(name: str) -> None:
    module = _Model(LAYERS[name])
    for parameter in module.parameters():
        parameter.data = torch.linspace(0.5, 2, parameter.numel()).reshape(parameter.shape)
    alone = []
    for row in _STATES:
        module.zero_grad()
        module(row.unsqueeze(0)).sum().backward()
        alone.append(torch.cat([value.grad.flatten() for value in module.parameters() if value.grad is not None]))
    wrapped = wrap(module.train())
    found = per_example_gradients(wrapped, wrapped, _STATES)
    torch.testing.assert_close(found, torch.stack(alone))
    wrapped.remove_hooks()


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_all_rows_share_is_refused(name: str) -> None:
    """Its gradient would be that of all rows together, in one row."""
    wrapped = wrap(_Model(LAYERS[name], shared=True).train())
    with pytest.raises(RuntimeError, match="on something else than one row for each example"):
        per_example_gradients(wrapped, wrapped, _STATES)
    wrapped.remove_hooks()


def test_every_layer_is_here() -> None:
    assert {type(layer) for layer in LAYERS.values()} == RULES.keys()
