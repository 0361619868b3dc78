"""The loss on answer tokens: that of all logits at once, without ever holding them."""

import pytest
import torch
from torch import Tensor, nn

from confide.common.generation import IGNORED
from confide.common.generation.answer_loss import answer_losses

WORDS, HIDDEN = 101, 16


@pytest.fixture
def head() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(HIDDEN, WORDS, bias=False).requires_grad_(False)


def _rows(*answers: int, tokens: int = 80) -> tuple[Tensor, Tensor]:
    """States, and targets at so many places of each row."""
    torch.manual_seed(2)
    states, targets = torch.randn(len(answers), tokens, HIDDEN), torch.full((len(answers), tokens), IGNORED)
    for row, count in enumerate(answers):
        places = torch.randperm(tokens)[:count]
        targets[row, places] = torch.randint(WORDS, (count,))
    return states.requires_grad_(), targets


def _whole(states: Tensor, targets: Tensor, head: nn.Linear) -> Tensor:
    each = nn.functional.cross_entropy(
        head(states).flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return each.view_as(targets).sum(dim=1)


def test_losses_and_gradients_are_those_of_all_logits_at_once(head: nn.Linear) -> None:
    states, targets = _rows(1, 31, 32, 33, 80, 0)
    sums, counts = answer_losses(states, targets, head)
    expected = _whole(states, targets, head)
    torch.testing.assert_close(sums, expected)
    assert counts.tolist() == [1, 31, 32, 33, 80, 0]
    weights = torch.arange(1.0, 7.0)
    [found] = torch.autograd.grad((sums * weights).sum(), states)
    [right] = torch.autograd.grad((expected * weights).sum(), states)
    torch.testing.assert_close(found, right)
    with torch.no_grad():
        torch.testing.assert_close(answer_losses(states, targets, head)[0], expected)


def test_a_row_s_gradient_is_the_same_bits_whatever_its_companions_answer(head: nn.Linear) -> None:
    """Beside long answers and short ones. One product over all answers takes another kernel for one than for two."""
    states, targets = _rows(1, 40, 80, 17)

    def gradient(rows: list[int]) -> Tensor:
        own = states[rows].detach().requires_grad_()
        sums, _ = answer_losses(own, targets[rows], head)
        [found] = torch.autograd.grad(sums.sum(), own)
        return found[0]

    alone = gradient([0])
    assert alone.abs().max() > 0
    assert all(torch.equal(gradient([0, *others]), alone) for others in ([1], [2, 3], [3, 3, 1, 2]))


def test_the_head_reads_32_states_at_a_time_and_only_those_with_a_target(head: nn.Linear) -> None:
    """Logits of all tokens of a long text would take gigabytes."""
    seen: list[tuple[int, ...]] = []

    def logits(states: Tensor) -> Tensor:
        seen.append(tuple(states.shape))
        logits: Tensor = head(states)
        return logits

    states, targets = _rows(3, 40, 0)
    sums, _ = answer_losses(states, targets, logits)
    sums.sum().backward()
    assert seen == [(32, HIDDEN)] * 3, "one chunk for 3 answers, two for 40, none again in the backward pass"


def test_rows_without_a_target_have_a_gradient_of_zero(head: nn.Linear) -> None:
    states, targets = _rows(0, 0)
    sums, _ = answer_losses(states, targets, head)
    sums.sum().backward()
    assert states.grad is not None
    assert not states.grad.any()
