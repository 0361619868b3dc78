"""Noise that institutions share: what each plan says of it, checked and computed anew in whole numbers."""

import math
from fractions import Fraction

from confide.common.verify.fields import PLAN, Row, faults

_SMOOTHING = 16  # a share of variance v bounds a continuous Gaussian of variance v - 16, in grid steps
SHARING = "min_members max_colluding grid_bits share_variance"


def plan_faults(plan: object) -> list[str]:
    """Return the faults of a plan, and of the noise that it shares."""
    wrong = faults(plan, PLAN)
    if wrong or not isinstance(plan, dict) or "sharing" not in plan:
        return wrong
    sharing = plan["sharing"]
    wrong = faults(sharing, SHARING)
    if wrong:
        return [f"sharing: {fault}" for fault in wrong]
    honest, of_sum = sharing["min_members"] - sharing["max_colluding"], Fraction(plan["noise_multiplier"])
    if honest < 2:
        return [f"sharing: {honest} members are honest, must be 2 at least"]
    if honest * sharing["share_variance"] < (of_sum * 2 ** sharing["grid_bits"]) ** 2 + _SMOOTHING:
        wrong = [f"noise_multiplier = {plan['noise_multiplier']} is more than {honest} shares add"]
    elif _multiplier(sharing) > of_sum:
        wrong = [f"noise_multiplier = {plan['noise_multiplier']} is less than one share adds"]
    return wrong + faults({"share_multiplier": float(_multiplier(sharing))}, "share_multiplier")


def if_broken(plan: Row) -> Row:
    """Return the plan whose account holds if all other members collude: with the noise of one share alone."""
    return {**plan, "noise_multiplier": float(_multiplier(plan["sharing"]))} if "sharing" in plan else plan


def _multiplier(sharing: Row) -> Fraction:
    """Return the noise multiplier of one share, rounded down to six digits."""
    steps = (sharing["share_variance"] - _SMOOTHING) * 10**12 // 4 ** sharing["grid_bits"]
    return Fraction(math.isqrt(steps), 10**6)
