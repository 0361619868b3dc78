"""A module whose per-example gradients are given by the data: the loss of example x is x . w, so its gradient is x."""

import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from confide.common.privacy import step
from confide.common.privacy.coins import CoinSource
from confide.common.privacy.gradients import wrap
from confide.common.privacy.plan import PrivacyPlan

_PLAN = PrivacyPlan(
    unit="record",
    sampling_probability=0.25,
    num_steps=100,
    declared_units=40,
    clip_norm=1.0,
    clipping="automatic",
    noise_multiplier=2.178,
    target_delta=1e-5,
)


def make_plan(**changes: object) -> PrivacyPlan:
    """A plan with expected batch size 10 and clip norm 1, changed where a test says so."""
    return replace(_PLAN, **changes)  # type: ignore[arg-type]


class Toy(nn.Module):
    """Two linear layers that read one half of the example each, so that "per layer" means something."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.half = size // 2
        self.left = nn.Linear(self.half, 1, bias=False)
        self.right = nn.Linear(size - self.half, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.left(x[:, : self.half]) + self.right(x[:, self.half :])).squeeze(1)


class ToyUnits:
    """Units as lists of gradients, in micro-batches of ``rows`` examples; remembers what was drawn."""

    def __init__(self, units: list[list[list[float]]], rows: int = 3) -> None:
        self.units, self.rows = units, rows
        self.draws: list[list[int]] = []

    @property
    def num_units(self) -> int:
        return len(self.units)

    def turn(self, unit: int) -> int:
        return zlib.crc32(repr(self.units[unit]).encode())

    def micro_batches(self, drawn: list[int]) -> Iterator[tuple[Tensor, list[int]]]:
        self.draws.append(drawn)
        examples = [(x, unit) for unit in drawn for x in self.units[unit]]
        for start in range(0, len(examples), self.rows):
            part = examples[start : start + self.rows]
            yield torch.tensor([x for x, _ in part]), [unit for _, unit in part]


def toy_step(plan: PrivacyPlan, coins: CoinSource, units: ToyUnits, size: int = 4) -> NDArray[np.float64]:
    """One private step, times the expected batch size: the noised sum of clipped unit gradients, ``(size,)``."""
    module = wrap(Toy(size))
    result = step.private_step(plan, coins, [step.Worker(units, module, module)], torch.ones(size))
    assert result.dtype == np.float32
    return result.astype(np.float64) * plan.expected_batch_size
