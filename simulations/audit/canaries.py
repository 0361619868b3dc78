"""Canaries in gradient space: units whose gradient is the clip norm in two coordinates of their own."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from confide.client.data.units import UnitTable
from confide.client.training.batches import BatchedUnits
from confide.common.data.batches import Batch
from confide.common.data.shapes import Shapes
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.gradients import wrap

_SIZE = 1000.0  # of a gradient's entry: far above any clip norm, so that the clip decides
# A canary has three examples and a micro-batch two rows: so each canary runs on into a second micro-batch, where a clip
# of each part would count it twice. Groups of records and long texts do that to a client.
EXAMPLES, _ROWS = 3, 2
_TOKENS = 16


class CanaryModel(nn.Module):
    """A layer as of an adapter and a layer as of a head, whose gradient for an example is chosen by its number.

    Half of a canary's gradient lies in each, in a coordinate that no other has. So a clip of each layer on its own
    counts a canary 1.4 times.
    """

    def __init__(self, num_canaries: int, head_weight: float) -> None:
        super().__init__()
        self.num_canaries, self.head_weight = num_canaries, head_weight
        self.lora_B = nn.ModuleDict({"default": nn.Linear(num_canaries, 1, bias=False)})
        self.head = nn.Linear(num_canaries, 1, bias=False)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return a loss for each number of a canary, shape ``(B,)``; the number after the last has no gradient."""
        own = _SIZE * one_hot(numbers, self.num_canaries + 1)[:, :-1].float()
        loss: Tensor = self.lora_B["default"](own) + self.head(own / self.head_weight)
        return loss.squeeze(1)


class _CanaryTask:
    """As much of a task as a step asks for."""

    def columns(self) -> dict[str, int]:
        """Return none."""
        return {}

    def losses(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of each example."""
        losses: Tensor = module(batch["input_ids"][:, 0])
        return losses


@dataclass(frozen=True)
class Canaries:
    """A model with canaries, and units to train it on.

    Attributes:
        model: as a client holds it.
        num_canaries: each has two coordinates; of their number depends nothing else.
    """

    model: WarmModel
    num_canaries: int

    @classmethod
    def made(cls, num_canaries: int, head_weight: float) -> "Canaries":
        """Make a model on this machine's processor, with weights of zero."""
        module = CanaryModel(num_canaries, head_weight)
        for parameter in module.parameters():
            parameter.data.zero_()
        tokenizer, task = SimpleNamespace(pad_token_id=0, eos_token_id=0), _CanaryTask()
        given: Any = task
        return cls(WarmModel(module, wrap(module), tokenizer, given, torch.device("cpu")), num_canaries)

    def units(self, numbers: list[int]) -> BatchedUnits:
        """Return these canaries as an institution's units, in micro-batches that cut each of them."""
        table = UnitTable([[{"input_ids": [number]}] * EXAMPLES for number in numbers])
        return BatchedUnits(table, self.model.pads, Shapes({_TOKENS: (_ROWS,)}), self.model.device)

    @property
    def bystander(self) -> int:
        """The number of a unit whose gradient is zero."""
        return self.num_canaries
