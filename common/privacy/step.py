"""One private step: draw -> gradients -> mean per unit -> clip -> sum -> noise -> normalise."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from torch import Tensor

from confide.common.privacy.clipping import clip
from confide.common.privacy.coins import CoinSource
from confide.common.privacy.gradients import per_example_gradients
from confide.common.privacy.noise import add_noise
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.sampling import draw_units
from confide.common.privacy.unit_means import unit_means

# Rows summed at once: a float64 copy of them fits in a processor's cache. A copy of all rows takes four times as long.
ROWS = 16


class Units(Protocol):
    """An institution's training share, cut into units."""

    @property
    def num_units(self) -> int:
        """Number of units (private)."""

    def micro_batches(self, drawn: list[int]) -> Iterable[tuple[Any, list[int]]]:
        """Yield ``(batch, unit_B)`` until all examples of the drawn units are covered, each unit's side by side.

        The first ``len(unit_B)`` rows of a batch are examples; more rows only fill it up to a public shape.
        """

    def turn(self, unit: int) -> int:
        """Return a number that follows from a unit's own examples alone."""


class Worker(NamedTuple):
    """A device's view of the training share, and its copy of the model.

    Attributes:
        units: the training share; its batches are on the device.
        module: wrapped module (`gradients.wrap`) with trainable parameters of P entries in all.
        losses: one loss per example of a micro-batch, shape ``(B,)``.
    """

    units: Units
    module: GradSampleModule
    losses: Callable[[Any], Tensor]


def private_step(
    plan: PrivacyPlan, coins: CoinSource, workers: Sequence[Worker], weights_P: Tensor
) -> NDArray[np.float32]:
    """Return one step's noised mean gradient (Abadi et al., arXiv 1607.00133, algorithm 1, with units for examples).

    Formal guarantee: the result is the Poisson-subsampled Gaussian mechanism of ``plan`` applied to the units, under
    adding or removing one unit, for any weights of the module. Nothing else about the units is returned, and no
    error, count or order of this function's results depends on a unit.

    Args:
        plan: sampling probability, clip, noise and normaliser.
        coins: private randomness, drawn fresh for this round.
        workers: one for each device, all with the same units and weights.
        weights_P: public weight of each coordinate before the clip (`[privacy] head_weight` on the head, else 1).

    Returns:
        Array of shape ``(P,)``, float32: (sum of clipped unit gradients + noise) / weights / expected batch size.

    Raises:
        ValueError: the plan shares its noise with other institutions: one alone has too little.
    """
    if plan.sharing is not None:
        raise ValueError("a plan with sharing has a share of the noise only: use private_share")
    drawn = draw_units(plan, coins, workers[0].units.num_units)
    # The order of this sum depends on the draw. In float64 that moves it by less than 3e-6 of a clip norm for 100,000
    # units, and the norm that `clip` bounds is rounded up by more (docs/guarantee.md, "Bit for bit").
    sum_P = clipped_sum(plan, drawn, workers, weights_P, lambda rows_UP: rows_UP.sum(dim=0, dtype=torch.float64))
    noised_P = add_noise(sum_P.numpy(), plan, coins)  # an empty draw comes here too: zero plus noise
    mean_P: NDArray[np.float32] = noised_P / weights_P.cpu().numpy() / np.float32(plan.expected_batch_size)
    return mean_P


def clipped_sum(
    plan: PrivacyPlan,
    drawn: list[int],
    workers: Sequence[Worker],
    weights_P: Tensor,
    counted: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return the sum over the drawn units of what their clipped gradients count, shape ``(P,)``, on the CPU.

    Each unit goes to one worker, whole, as `of_devices` says. Workers compute at the same time.

    Args:
        plan: clip.
        drawn: the units.
        workers: as of `private_step`.
        weights_P: as of `private_step`.
        counted: the sum of some rows, from ``(U, P)`` to ``(P,)``, in float64 or int64.
    """

    def of(worker: Worker, units: list[int]) -> Tensor:
        weights = weights_P.to(next(worker.module.parameters()).device)
        sum_P = counted(weights.new_zeros(1, len(weights)))
        batches = worker.units.micro_batches(units)
        for clipped_UP in clipped_gradients(plan, batches, worker.module, worker.losses, weights):
            for rows_UP in torch.split(clipped_UP, ROWS):
                sum_P += counted(rows_UP)
            # Otherwise they would stay in memory while the next micro-batch is computed. A step's memory would then
            # depend on the two micro-batches that follow each other; it must depend on the fullest one alone.
            del clipped_UP, rows_UP
        return sum_P.cpu()

    if len(workers) == 1:
        return of(workers[0], drawn)
    with ThreadPoolExecutor(len(workers)) as pool:
        parts = of_devices(workers[0].units, drawn, len(workers))
        return torch.stack(list(pool.map(of, workers, parts))).sum(dim=0)


def of_devices(units: Units, chosen: list[int], count: int) -> list[list[int]]:
    """Return the chosen units of each of so many devices, which follow from a unit alone: they may differ in a bit."""
    turns = {unit: units.turn(unit) % count for unit in chosen}
    return [[unit for unit in chosen if turns[unit] == number] for number in range(count)]


def clipped_gradients(
    plan: PrivacyPlan,
    micro_batches: Iterable[tuple[Any, list[int]]],
    module: GradSampleModule,
    losses: Callable[[Any], Tensor],
    weights_P: Tensor,
) -> Iterator[Tensor]:
    """Yield the clipped gradients of the units in some micro-batches, shape ``(U, P)`` at a time, float32.

    Formal guarantee: a row depends on its own unit and the weights of ``module`` only, bit for bit, if rows of
    ``losses`` do so in the shapes of these micro-batches. The client tests this before a run (`training.trial`).
    """
    parts = (
        (per_example_gradients(module, losses, batch)[: len(unit_B)].mul_(weights_P), unit_B)
        for batch, unit_B in micro_batches
    )
    for gradients_UP in unit_means(parts):
        yield clip(gradients_UP, plan)
        del gradients_UP  # as in `clipped_sum`
