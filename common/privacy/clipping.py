"""Clipping: the bound on the contribution of one unit to a step."""

import torch
from torch import Tensor

from confide.common.privacy.plan import PrivacyPlan

# Automatic clipping's stability constant (gamma of Bu et al., arXiv 2206.07136, section 4).
STABILITY = 0.01
_ENTRIES = 1024
# If one large entry swallows the squares of all later ones in its lane, 256 additions in float32 (1,024 entries in 4
# lanes, the fewest of a vector unit) come out at most 256 * 2**-24 too small, and the norm by half of that. So norms
# are rounded up by twice as much: the rest is for the sum over units (docs/guarantee.md, "Bit for bit").
_ROUND_UP = 1 + 2.0**-16


def clip(gradients_UP: Tensor, plan: PrivacyPlan) -> Tensor:
    """Bound each row's L2 norm by ``plan.clip_norm``, flat over all parameters together, in float32.

    Formal guarantee: every row of the result has norm at most ``clip_norm`` up to float32 rounding, and depends on
    the same row of the input only. So adding or removing one unit moves the sum of rows by at most ``clip_norm``.

    | row of the input              | row of the result                       |
    |-------------------------------|-----------------------------------------|
    | any entry NaN or infinite     | zero, silently: an error would tell     |
    | finite, norm overflows        | zero (the factor is C / inf)            |
    | zero                          | zero                                    |
    | else, clipping = "automatic"  | g * C / (norm + 0.01)                   |
    | else, clipping = "abadi"      | g * min(1, C / norm)                    |

    Args:
        gradients_UP: one gradient per unit, shape ``(U, P)``, float32.
        plan: gives ``clip_norm`` and the kind of clipping.

    Returns:
        Tensor of shape ``(U, P)``, float32.
    """
    norms_U1 = _norms(gradients_UP).unsqueeze(1)
    if plan.clipping == "automatic":
        factors_U1 = plan.clip_norm / (norms_U1 + STABILITY)
    else:
        factors_U1 = torch.clamp(plan.clip_norm / norms_U1, max=1.0)  # norm 0 gives inf, clamped to 1
    # Filled, not multiplied by zero: 0 * nan is nan, and noise does not hide a nan.
    return (gradients_UP * factors_U1).masked_fill_(~torch.isfinite(norms_U1), 0.0)


def _norms(gradients_UP: Tensor) -> Tensor:
    """Return the L2 norm of each row, shape ``(U,)``, float32; infinite or NaN if an entry is or a square overflows.

    In float32 a norm over millions of entries comes out short, so that the clipped row exceeds the bound. In float64
    alone it takes 30 times as long. So: norms of 1,024 entries each in float32, then norms of these in float64. No
    norm is over more than 1,024 numbers: PyTorch would split a longer one among threads for one row but not for two,
    and the row's last bit would depend on that.
    """
    norms_UN = _norms_of_parts(gradients_UP).double()
    while norms_UN.shape[1] > 1:
        norms_UN = _norms_of_parts(norms_UN)
    return (norms_UN[:, 0] * _ROUND_UP).float()


def _norms_of_parts(numbers_UP: Tensor) -> Tensor:
    """Return norms of 1,024 numbers each, and of the rest, shape ``(U, P // 1024 + 1)`` unless no rest is left."""
    whole = numbers_UP.shape[1] // _ENTRIES * _ENTRIES
    parts_UNE = numbers_UP[:, :whole].reshape(len(numbers_UP), whole // _ENTRIES, _ENTRIES)
    parts_UN: Tensor = torch.linalg.vector_norm(parts_UNE, dim=2)
    if whole == numbers_UP.shape[1]:
        return parts_UN
    rest_U1 = torch.linalg.vector_norm(numbers_UP[:, whole:], dim=1, keepdim=True)
    return torch.cat([parts_UN, rest_U1], dim=1)
