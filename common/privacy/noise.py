"""Gaussian noise from a cryptographic source."""

import math

import numpy as np
from numpy.typing import NDArray

from confide.common.privacy.coins import CoinSource
from confide.common.privacy.plan import PrivacyPlan

_DRAWS = 4  # independent Gaussians behind each coordinate (arXiv 2107.10138)


def standard_normals(coins: CoinSource, count: int) -> NDArray[np.float64]:
    """Return ``count`` independent standard normals, shape ``(count,)``.

    Box-Muller on 53-bit uniforms. Each value is the sum of four independent draws divided by 2, so its variance
    is 4 / 2**2 = 1. An attacker who wants to undo the rounding of one value must solve for four at once
    (Holohan and Braghin, arXiv 2107.10138). This is hardening, not a proof about floating point.
    """
    pairs = math.ceil(count / 2)
    uniforms = coins.noise_uniforms(2 * pairs * _DRAWS).reshape(_DRAWS, 2, pairs)
    radius = np.sqrt(-2.0 * np.log(uniforms[:, 0]))
    angle = 2.0 * np.pi * uniforms[:, 1]
    normals = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return np.asarray(normals.sum(axis=0)[:count] / 2.0)


def add_noise(sum_P: NDArray[np.float64], plan: PrivacyPlan, coins: CoinSource) -> NDArray[np.float32]:
    """Add Gaussian noise of ``plan.noise_stddev`` to a sum of clipped gradients.

    Formal guarantee: with ``sum_P`` of L2 sensitivity ``clip_norm`` under adding or removing a unit, this is the
    Gaussian mechanism with the plan's ``noise_multiplier``, up to floating point. All later steps are post-processing.

    Args:
        sum_P: the sum, shape ``(P,)``, float64, finite.
        plan: gives the standard deviation.
        coins: the noise stream; four uniforms per coordinate.

    Returns:
        Array of shape ``(P,)``, float32, rounded to a public grid of 2**floor(log2(noise_stddev)) * 2**-20. The low
        bits of a float64 sum would otherwise reveal the magnitudes that were added (Mironov, CCS 2012).
    """
    return _noised(sum_P, plan.noise_stddev, coins)


def noised_cells(cells_C: NDArray[np.float64], plan: PrivacyPlan, coins: CoinSource) -> NDArray[np.float32]:
    """Return counts over disjoint cells, with Gaussian noise of ``plan.validation_noise_multiplier``.

    Formal guarantee: if a unit weighs at most 1 in total over all cells, adding or removing one changes ``cells_C``
    by at most 1 in L2 norm (already in L1). So this is the Gaussian mechanism with that noise multiplier. "Correct
    and total" would not do: a unit can be in both, and then the sensitivity is the square root of 2.

    Args:
        cells_C: the weight of the units in each cell, shape ``(C,)``, float64, each at least 0.
        plan: gives the standard deviation.
        coins: the noise stream.

    Returns:
        Array of shape ``(C,)``, float32; may be negative.
    """
    return _noised(cells_C, plan.validation_noise_multiplier, coins)


def _noised(values: NDArray[np.float64], stddev: float, coins: CoinSource) -> NDArray[np.float32]:
    grid = 2.0 ** (math.floor(math.log2(stddev)) - 20)
    noised = values + stddev * standard_normals(coins, values.size)
    return (np.round(noised / grid) * grid).astype(np.float32)
