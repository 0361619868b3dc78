"""Clipping: the bound on the contribution of one unit to a step."""

import torch
from torch import Tensor

from confide.common.privacy.plan import PrivacyPlan

# Automatic clipping's stability constant (gamma of Bu et al., arXiv 2206.07136, section 4).
STABILITY = 0.01
# A sum of squares in pairs takes a square and at most 31 additions for each number, so it is at most 32 * 2**-24 short,
# and the norm by half of that. Norms are rounded up by sixteen times as much: the rest is for the factor, the product
# and the sum over units (docs/guarantee.md, "Bit for bit").
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
    """Return the L2 norm of each row, shape ``(U,)``, float32.

    It is infinite or NaN if an entry is, and infinite if a sum of squares overflows.

    The second half of the squares is added to the first, until one number is left. Each operation takes two numbers
    and is rounded as IEEE 754 says, so no kernel chooses an order. A library's own sum or norm has one that follows
    from the number of rows, which other units decide: on a GPU a reduction is laid out by it, and a CPU splits a long
    one among threads for one row but not for two. A sum in turn would also come out short over millions of entries.
    """
    sums_UP = gradients_UP * gradients_UP  # no multiply-add in one: it rounds once, and not on every machine
    while (count := sums_UP.shape[1]) > 1:
        half = (count + 1) // 2
        sums_UP[:, : count - half] += sums_UP[:, half:]
        sums_UP = sums_UP[:, :half]
    return (sums_UP[:, 0].double().sqrt() * _ROUND_UP).float()
