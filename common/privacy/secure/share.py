"""One institution's share of a secure sum: draw -> gradients -> clip -> lattice -> sum -> noise, as integers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus import GradSampleModule
from torch import Tensor

from confide.common.privacy.coins import CoinSource
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.sampling import draw_units
from confide.common.privacy.secure.discrete_gaussian import discrete_gaussian
from confide.common.privacy.secure.lattice import to_grid
from confide.common.privacy.secure.sharing import Sharing
from confide.common.privacy.step import ROWS, Units, clipped_gradients

_MODULUS = 2**32


def private_share(
    plan: PrivacyPlan,
    coins: CoinSource,
    units: Units,
    module: GradSampleModule,
    losses: Callable[[Any], Tensor],
    weights_P: Tensor,
) -> NDArray[np.uint32]:
    """Return one step's sum of clipped unit gradients with this institution's share of the noise, modulo 2**32.

    Formal guarantee: the sum, modulo 2**32, of the results of ``plan.sharing.num_honest`` institutions with coins of
    their own is the Poisson-subsampled Gaussian mechanism of ``plan`` applied to their units together, under adding or
    removing one unit. One result alone is that mechanism with the noise of `PrivacyPlan.if_broken`. Both hold for any
    weights of ``module``, up to exp(-316) (`sharing.SMOOTHING`). Nothing may be computed from a result before it
    stands in a sum.

    Args:
        plan: sampling probability, clip, and the share of the noise.
        coins: private randomness, drawn fresh for this round.
        units: the training share.
        module: wrapped module (`gradients.wrap`) with trainable parameters of P entries in all.
        losses: one loss per example of a micro-batch, shape ``(B,)``.
        weights_P: public weight of each coordinate before the clip; whoever reads the sum divides by it.

    Returns:
        Array of shape ``(P,)``, uint32: grid steps of ``clip_norm / 2**grid_bits``.

    Raises:
        ValueError: the plan shares no noise.
    """
    if plan.sharing is None:
        raise ValueError("a plan without sharing has the noise of one institution: use private_step")
    drawn = draw_units(plan, coins, units.num_units)
    sum_P = torch.zeros(len(weights_P), dtype=torch.int64, device=weights_P.device)
    for clipped_UP in clipped_gradients(plan, units.micro_batches(drawn), module, losses, weights_P):
        for rows_UP in torch.split(clipped_UP, ROWS):
            sum_P += to_grid(rows_UP, plan, plan.sharing).sum(dim=0)
        del clipped_UP, rows_UP  # as in `private_step`
    return noised_share(sum_P.cpu().numpy(), plan.sharing, coins)  # an empty draw comes here too: zero plus noise


def noised_share(sum_P: NDArray[np.int64], sharing: Sharing, coins: CoinSource) -> NDArray[np.uint32]:
    """Add the share's noise to a sum in grid steps, modulo 2**32."""
    noised_P = sum_P + discrete_gaussian(sharing.share_variance, sum_P.size, coins)
    return (noised_P % _MODULUS).astype(np.uint32)
