"""Clipping: the bound on what one unit can contribute to a step."""

import torch
from torch import Tensor

from confide.common.privacy.plan import PrivacyPlan

# Automatic clipping's stability constant (gamma of Bu et al., arXiv 2206.07136, section 4).
STABILITY = 0.01


def clip(gradients_UP: Tensor, plan: PrivacyPlan) -> Tensor:
    """Bound each row's L2 norm by ``plan.clip_norm``, flat over all parameters together, in float32.

    Formal guarantee: every row of the result has norm at most ``clip_norm`` up to float32 rounding and depends on
    the same row of the input only; so adding or removing one unit moves the sum of rows by at most ``clip_norm``.

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
    finite_U1 = torch.isfinite(gradients_UP).all(dim=1, keepdim=True)
    # `where`, not a product: 0 * nan is nan, and noise does not hide a nan.
    safe_UP = torch.where(finite_U1, gradients_UP, torch.zeros_like(gradients_UP))
    # Summed in float64: in float32 a norm over millions of parameters comes out short, and rows above the bound. The
    # square back in float32 overflows where a norm is near the end of float32's range, and the factor is 0 there.
    squares_U1 = torch.linalg.vector_norm(safe_UP, dim=1, keepdim=True, dtype=torch.float64).square()
    norms_U1 = squares_U1.float().sqrt()
    if plan.clipping == "automatic":
        factors_U1 = plan.clip_norm / (norms_U1 + STABILITY)
    else:
        factors_U1 = torch.clamp(plan.clip_norm / norms_U1, max=1.0)  # norm 0 gives inf, clamped to 1
    clipped_UP: Tensor = safe_UP * factors_U1
    return torch.where(torch.isfinite(clipped_UP).all(dim=1, keepdim=True), clipped_UP, torch.zeros_like(clipped_UP))
