"""Clipped gradients in whole grid steps: behind this line there is no floating point, and no order of additions."""

import torch
from torch import Tensor

from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.secure.sharing import MAX_COORDINATES, Sharing


def to_grid(clipped_UP: Tensor, plan: PrivacyPlan, sharing: Sharing) -> Tensor:
    """Return each row in grid steps of ``clip_norm / 2**grid_bits``, truncated towards zero; too long a row as zero.

    Formal guarantee: every row of the result is an integer vector of L2 norm at most ``2**grid_bits``, exactly, and
    depends on the same row of the input only. So one unit moves the sum of rows by at most ``2**grid_bits``. No term
    for rounding is needed: rounding the sum, or each entry to the nearest step, would lengthen a row by up to
    ``sqrt(P) / 2`` steps.

    Args:
        clipped_UP: clipped gradients, shape ``(U, P)``, float32.
        plan: gives ``clip_norm``, the bound on their norms.
        sharing: gives ``grid_bits``.

    Returns:
        Tensor of shape ``(U, P)``, int64.

    Raises:
        ValueError: so many coordinates that squares could wrap.
    """
    if clipped_UP.shape[1] > MAX_COORDINATES:
        raise ValueError(f"{clipped_UP.shape[1]:,} trained numbers, a secure sum takes at most {MAX_COORDINATES:,}")
    bits = sharing.grid_bits
    scaled_UP = torch.trunc(clipped_UP.double() * (2.0**bits / plan.clip_norm))
    inside_U1 = (scaled_UP.abs() <= 2.0**bits).all(dim=1, keepdim=True)  # first: a square of more would wrap; no NaN
    steps_UP = scaled_UP.masked_fill_(~inside_U1, 0.0).long()
    fits_U1 = (steps_UP**2).sum(dim=1, keepdim=True) <= 4**bits
    return steps_UP.masked_fill_(~fits_U1, 0)
