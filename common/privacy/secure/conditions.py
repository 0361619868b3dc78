"""The epsilon of shared noise under each condition: so many members collude with the server."""

import math

from confide.common.privacy.accounting import epsilon
from confide.common.privacy.least import least_epsilon
from confide.common.privacy.plan import PrivacyPlan

HIGHEST = 50.0  # e^50 to one: a bound above it, or none, is shown as "no bound up to 50"


def epsilon_if_colluding(plan: PrivacyPlan) -> dict[int, float]:
    """Return epsilon for numbers of members that collude: as many as the plan allows, one and two more, all others."""
    if plan.sharing is None:
        return {}
    allowed, all_others = plan.sharing.max_colluding, plan.sharing.min_members - 1
    numbers = sorted({allowed, min(allowed + 1, all_others), min(allowed + 2, all_others), all_others})
    return {number: epsilon_or_infinite(plan.if_colluding(number)) for number in numbers}


def epsilon_or_infinite(plan: PrivacyPlan) -> float:
    """Return epsilon; infinite if a lower bound shows that it is no protection, for PLD would take minutes there."""
    return epsilon(plan) if least_epsilon(plan) <= HIGHEST else math.inf
