"""The numbers of the privacy statement: the meaning of a plan's epsilon, and the protection beyond its guarantee."""

import math
from dataclasses import replace
from functools import lru_cache
from typing import TypedDict

from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.pld import PLDAccountant
from scipy.stats import binom

from confide.common.privacy.accounting import attack_true_positive_rate, epsilon, event, round_up
from confide.common.privacy.least import least_epsilon
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.secure.conditions import HIGHEST, epsilon_if_colluding, epsilon_or_infinite

_FALSE_POSITIVE_RATE = 0.01
_INSTITUTIONS = (2, 4)
_RECORDS = (2, 5)
# The grid divides the loss of one step into so many intervals, so that time and memory are much the same for every
# plan. All grids give upper bounds: 0.01 % and 0.02 % above the tight value for 40 steps, 2 % for 10,000.
# The second is for mixtures of Gaussians, which cost ten times as much for each point.
_INTERVALS, _MIXTURE_INTERVALS = 10_000, 2000
_FINEST_GRID = 1e-4


class Statement(TypedDict):
    """Numbers for one plan at its delta, after all of its steps. All are public, and all are rounded up.

    Attributes:
        epsilon: for one unit, as promised; of a sum, if at most ``max_colluding`` of its members collude.
        epsilon_if_broken: for one unit, if all other members of every sum collude. Equal to ``epsilon`` where each
            institution adds all of the noise.
        colluding: number of members that collude -> epsilon. Empty where nothing is shared.
        institutions_if_broken: as ``institutions``, if all other members collude. Empty where nothing is shared.
        false_positive_rate: share of units outside the data that an attacker takes for members.
        true_positive_rate: bound on the share of members that this attacker recognises.
        institutions: number of institutions that hold a unit of one person -> epsilon for that person.
        records: number of records of one person at one institution -> epsilon for that person. Empty for the
            group unit: up to ``max_records_per_group`` records of one group are one unit already.
        highest: an epsilon above this, or infinite, is no protection, and must not be shown as a number.
    """

    epsilon: float
    epsilon_if_broken: float
    colluding: dict[int, float]
    institutions_if_broken: dict[int, float]
    false_positive_rate: float
    true_positive_rate: float
    institutions: dict[int, float]
    records: dict[int, float]
    highest: float


def statement(plan: PrivacyPlan) -> Statement:
    """Return all numbers that the privacy statement of a run gives for its plan."""
    rate = attack_true_positive_rate(plan, _FALSE_POSITIVE_RATE)
    return {
        "epsilon": epsilon(plan),
        "epsilon_if_broken": epsilon_or_infinite(plan.if_broken),
        "colluding": epsilon_if_colluding(plan),
        "institutions_if_broken": {count: _of_broken(plan.if_broken, count) for count in _INSTITUTIONS if plan.sharing},
        "false_positive_rate": _FALSE_POSITIVE_RATE,
        "true_positive_rate": round_up(rate, 3),  # printed as 4.5 %
        "institutions": {count: epsilon_of_institutions(plan, count) for count in _INSTITUTIONS},
        "records": {count: epsilon_of_records(plan, count) for count in _RECORDS} if plan.unit == "record" else {},
        "highest": HIGHEST,
    }


def _of_broken(plan: PrivacyPlan, count: int) -> float:
    in_all = replace(plan, num_steps=count * plan.num_steps, validation_releases=count * plan.validation_releases)
    return epsilon_of_institutions(plan, count) if least_epsilon(in_all) <= HIGHEST else math.inf


@lru_cache(maxsize=256)
def epsilon_of_institutions(plan: PrivacyPlan, num_institutions: int) -> float:
    """Return epsilon at the plan's delta for a person with one unit in each of so many institutions of a run.

    All institutions run the same plan with coins of their own, step by step in turn. Each step starts from weights
    that depend on all earlier ones: adaptive composition of ``num_institutions`` times the steps and releases. If the
    institutions share noise, their units meet in one sum as records of one institution do (`epsilon_of_records`), or
    a server keeps them apart in sums of other members: the larger of both.

    Formal guarantee: everything that these institutions send under the plan is together (epsilon, delta)-
    differentially private under adding or removing that person's unit in all of them at once.

    Returns:
        An upper bound (PLD), rounded up to four digits; infinite if none is found.
    """
    accountant = _accountant(plan, 1, _INTERVALS)
    accountant.compose(event(plan, num_institutions * plan.num_steps, num_institutions * plan.validation_releases))
    apart = round_up(accountant.get_epsilon(plan.target_delta))
    return apart if plan.sharing is None else max(apart, epsilon_of_records(plan, num_institutions))


@lru_cache(maxsize=256)
def epsilon_of_records(plan: PrivacyPlan, num_records: int) -> float:
    """Return epsilon at the plan's delta for a person with so many records, each a unit, at one institution.

    Every step draws each record by itself: a Binomial(``num_records``, q) number of them takes part, and their sum
    moves by at most that many clip norms. That is a mixture of Gaussians with these sensitivities, and no other data
    or weights are worse (Ganesh, arXiv 2401.10294, theorem 3.1; Choquette-Choo et al., arXiv 2310.15526, corollary
    4.7). In a validation release the records weigh ``num_records`` together. A record is in training or validation,
    never in both; charging both is an upper bound.

    Formal guarantee: everything that one institution sends under the plan is together (epsilon, delta)-differentially
    private under adding or removing all ``num_records`` records at once.

    ===========================  =====================================================================
    edge                         value
    ===========================  =====================================================================
    one record                   that of `accounting.epsilon`, on a coarser grid
    sampling probability 1       that of the Gaussian mechanism with noise multiplier / ``num_records``
    delta below what PLD shows   infinite
    ===========================  =====================================================================

    Returns:
        An upper bound (PLD), rounded up to four digits.

    >>> plan = PrivacyPlan("record", 0.1, 200, 2000, 1.0, "automatic", 2.179, 1e-5)
    >>> round(epsilon_of_records(plan, 2), 2)  # more than twice 3.00
    6.71
    """
    drawn = range(num_records + 1)
    step = dp_event.MixtureOfGaussiansDpEvent(
        plan.noise_multiplier,
        [float(count) for count in drawn],
        [float(binom.pmf(count, num_records, plan.sampling_probability)) for count in drawn],
    )
    accountant = _accountant(plan, num_records, _MIXTURE_INTERVALS)
    accountant.compose(dp_event.SelfComposedDpEvent(step, plan.num_steps))
    if plan.validation_releases:
        release = dp_event.GaussianDpEvent(plan.validation_noise_multiplier / num_records)
        accountant.compose(dp_event.SelfComposedDpEvent(release, plan.validation_releases))
    return round_up(accountant.get_epsilon(plan.target_delta))


def _accountant(plan: PrivacyPlan, num_records: int, intervals: int) -> PLDAccountant:
    largest = num_records / plan.noise_multiplier  # sensitivity over noise when all of the records are drawn
    losses = 10 * largest + largest**2 / 2  # of one step, with noise up to 10 standard deviations
    grid = max(_FINEST_GRID, losses / intervals)
    return PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=grid)
