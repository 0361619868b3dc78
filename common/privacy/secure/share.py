"""One institution's share of a secure sum: draw -> gradients -> clip -> lattice -> sum -> noise, as integers."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from confide.common.privacy.coins import CoinSource
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.sampling import draw_units
from confide.common.privacy.secure.discrete_gaussian import discrete_gaussian
from confide.common.privacy.secure.lattice import to_grid
from confide.common.privacy.secure.sharing import Sharing
from confide.common.privacy.step import Worker, clipped_sum

_MODULUS = 2**32


def private_share(
    plan: PrivacyPlan, coins: CoinSource, workers: Sequence[Worker], weights_P: Tensor
) -> NDArray[np.uint32]:
    """Return one step's sum of clipped unit gradients with this institution's share of the noise, modulo 2**32.

    Formal guarantee: the sum, modulo 2**32, of the results of ``plan.sharing.num_honest`` institutions with coins of
    their own is the Poisson-subsampled Gaussian mechanism of ``plan`` applied to their units together, under adding or
    removing one unit. One result alone is that mechanism with the noise of `PrivacyPlan.if_broken`. Both hold for any
    weights of the module, up to exp(-316) (`sharing.SMOOTHING`). Nothing may be computed from a result before it
    stands in a sum.

    Args:
        plan: sampling probability, clip, and the share of the noise.
        coins: private randomness, drawn fresh for this round.
        workers: one for each device, all with the same units and weights.
        weights_P: public weight of each coordinate before the clip; whoever reads the sum divides by it.

    Returns:
        Array of shape ``(P,)``, uint32: grid steps of ``clip_norm / 2**grid_bits``.

    Raises:
        ValueError: the plan shares no noise.
    """
    if plan.sharing is None:
        raise ValueError("a plan without sharing has the noise of one institution: use private_step")
    sharing, drawn = plan.sharing, draw_units(plan, coins, workers[0].units.num_units)
    sum_P = clipped_sum(plan, drawn, workers, weights_P, lambda rows_UP: to_grid(rows_UP, plan, sharing).sum(dim=0))
    return noised_share(sum_P.numpy(), sharing, coins)  # an empty draw comes here too: zero plus noise


def noised_share(sum_P: NDArray[np.int64], sharing: Sharing, coins: CoinSource) -> NDArray[np.uint32]:
    """Add the share's noise to a sum in grid steps, modulo 2**32."""
    noised_P = sum_P + discrete_gaussian(sharing.share_variance, sum_P.size, coins)
    return (noised_P % _MODULUS).astype(np.uint32)
