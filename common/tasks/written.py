"""The parts of kinds that learn to write: the loss on an answer's tokens, its perplexity, its likelihood."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from confide.common.generation.text_metrics import WORST_LOSS, perplexity

if TYPE_CHECKING:
    from torch import Tensor

Loss = list[float]  # the sum of losses over a record's answer tokens, and their number, as JSON holds them


def mean_losses(module: Any, batch: "Mapping[str, Tensor]") -> "Tensor":
    """Return the mean cross-entropy over each example's own answer tokens, shape ``(B,)``; 0 where there are none."""
    sums, counts = _answer_losses(module, batch)
    return sums / counts.clamp(min=1)


def summed_losses(module: Any, batch: "Mapping[str, Tensor]") -> list[Loss]:
    """Return the sum of losses over each example's answer tokens, and their number."""
    sums, counts = _answer_losses(module, batch)
    return [
        [total if math.isfinite(total) else WORST_LOSS * count, count]
        for total, count in zip(sums.tolist(), counts.tolist(), strict=True)
    ]


def _answer_losses(module: Any, batch: "Mapping[str, Tensor]") -> "tuple[Tensor, Tensor]":
    names = ("input_ids", "attention_mask", "target")
    own = getattr(module, "_module", module)  # Opacus' wrapper passes on no methods of what it wraps
    losses: tuple[Tensor, Tensor] = own.answer_losses(*(batch[name] for name in names))
    return losses


def added(outputs: list[Loss]) -> Loss:
    """Return the losses of a record from those of its windows."""
    return [sum(total for total, _ in outputs), sum(count for _, count in outputs)]


def perplexity_of(losses: Sequence[Loss]) -> dict[str, float]:
    """Return the perplexity of all records together."""
    return {"perplexity": perplexity([(total, int(count)) for total, count in losses])}


def likelihood(loss: Loss) -> float:
    """Return the geometric mean of the probabilities of a record's answer tokens, in [0, 1]."""
    total, count = loss
    return math.exp(-total / count) if count else 0.0


def base_problem(module: Any, batch: "Mapping[str, Tensor]") -> str | None:
    """Return why the base's logits cannot be computed apart; None if they can."""
    from confide.common.generation.language_model import head_problem

    return head_problem(module, batch)
