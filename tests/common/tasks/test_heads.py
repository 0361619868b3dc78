"""Heads on standardised states are, for a reader, heads on the base's own states."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from confide.common.tasks.heads import MeanPooledHead, QuestionHead, TokenHead


class _Base(nn.Module):
    """A base whose states are an embedding of the tokens, all near one point and of many scales."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 6)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            scales = torch.tensor([0.01, 0.1, 1.0, 1.0, 10.0, 30.0])
            self.table.weight.data = 20.0 + scales * torch.randn(50, 6)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


@pytest.mark.parametrize("kind", [TokenHead, MeanPooledHead, QuestionHead])
def test_the_plain_head_gives_the_same_outputs_on_states_as_they_are(kind: type[TokenHead]) -> None:
    ids = torch.arange(24).view(2, 12)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    head = kind(_Base(), 6, 3)
    states = head.encoder.table.weight  # type: ignore[union-attr, operator]
    head.centre.copy_(states.mean(dim=0))
    head.spread.copy_(states.std(dim=0))
    plain, tensors = kind(head.encoder, 6, 3), head.plain()
    plain.centre.copy_(tensors.pop("centre", torch.zeros(6)))
    plain.head.load_state_dict(tensors)
    with torch.no_grad():
        found, expected = plain(ids, mask), head(ids, mask)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)  # 20 over a spread of 0.01: three digits go


@pytest.mark.parametrize("kind", [TokenHead, MeanPooledHead, QuestionHead])
def test_a_shared_direction_of_all_states_moves_no_output(kind: type[TokenHead]) -> None:
    ids = torch.arange(24).view(2, 12)
    head = kind(_Base(), 6, 3)
    states = head.encoder.table.weight  # type: ignore[union-attr, operator]
    outputs = []
    with torch.no_grad():
        for shift in (0.0, 100.0):
            states += shift
            head.centre.copy_(states.mean(dim=0))
            outputs.append(head(ids, torch.ones_like(ids)))
    torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-3)


def test_constants_are_neither_trained_nor_sent() -> None:
    head = TokenHead(_Base(), 6, 3)
    assert not any(name in ("centre", "spread") for name, _ in head.named_parameters())
    assert head.plain().keys() == {"weight", "bias"}
