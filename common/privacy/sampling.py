"""Poisson sampling of units."""

from confide.common.privacy.coins import CoinSource
from confide.common.privacy.plan import Plan


def draw_units(plan: Plan, coins: CoinSource, num_units: int) -> list[int]:
    """Draw the units of one step: each independently with the plan's public ``sampling_probability``.

    Formal guarantee: this is the sampling that `accounting.epsilon` assumes. Shuffling, batches of fixed size, or
    one draw kept for several steps are not: arXiv 2411.10614 measured up to 4 times the claimed epsilon. One mask
    for five steps turns an epsilon of 3.00 into 4.94.

    Args:
        plan: gives the probability; it does not depend on ``num_units``, which is private.
        coins: the mask stream gives one uniform per unit.
        num_units: number of units in the training share (private; it never leaves the institution).

    Returns:
        Indices of the drawn units in increasing order. May be empty: an empty draw is a step like any other.
    """
    included = coins.mask_uniforms(num_units) <= plan.sampling_probability
    return [int(index) for index in included.nonzero()[0]]
