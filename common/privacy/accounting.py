"""The epsilon of the steps of a plan: PLD accounting by dp-accounting, rounded up."""

import math
from dataclasses import replace
from functools import lru_cache

from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from confide.common.privacy.plan import PrivacyPlan

_DIGITS = 4  # printed digits of epsilon and noise multiplier; both are rounded up to them
_MAX_NOISE_MULTIPLIER = 1e4
# Grids of the privacy loss, both upper bounds. The coarse one is for searches: up to 1e-4 higher, ten times as fast.
_FINE, _COARSE = 1e-4, 1e-3


def round_up(value: float, digits: int = _DIGITS) -> float:
    """Return a value as it is printed, rounded up: never below the value itself."""
    return math.ceil(value * 10**digits) / 10**digits if math.isfinite(value) else value


def event(plan: PrivacyPlan, num_steps: int, num_releases: int) -> dp_event.DpEvent:
    """Return so many steps and validation releases of a plan as an accountant's event."""
    step = dp_event.PoissonSampledDpEvent(plan.sampling_probability, dp_event.GaussianDpEvent(plan.noise_multiplier))
    release = dp_event.GaussianDpEvent(plan.validation_noise_multiplier)
    parts = [(step, num_steps), (release, num_releases)]
    return dp_event.ComposedDpEvent([dp_event.SelfComposedDpEvent(part, count) for part, count in parts if count])


@lru_cache(maxsize=8)  # each holds megabytes, and every evaluation of a run composes another
def _compose(plan: PrivacyPlan, num_steps: int, num_releases: int, grid: float) -> PLDAccountant:
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=grid)
    accountant.compose(event(plan, num_steps, num_releases))
    return accountant


@lru_cache(maxsize=4096)
def _epsilon(plan: PrivacyPlan, num_steps: int, num_releases: int, delta: float) -> float:
    return round_up(_composed(plan, num_steps, num_releases).get_epsilon(delta))


def _composed(plan: PrivacyPlan, num_steps: int, num_releases: int, grid: float = _FINE) -> PLDAccountant:
    # Fields that do not enter the account are made equal first: institutions of all sizes share one composition.
    neutral = replace(plan, declared_units=1, num_steps=1, target_delta=0.5, validation_releases=0, sharing=None)
    return _compose(neutral, num_steps, num_releases, grid)


def epsilon(plan: PrivacyPlan, num_steps: int | None = None, num_releases: int | None = None) -> float:
    """Return epsilon at the plan's delta after so many steps and releases (by default all), by PLD, rounded up.

    dp-accounting's PLD is a pessimistic discretisation: the value is an upper bound.

    >>> plan = PrivacyPlan("record", 0.1, 200, 2000, 1.0, "automatic", 2.179, 1e-5)
    >>> epsilon(plan)
    2.9983
    """
    num_steps = plan.num_steps if num_steps is None else num_steps
    num_releases = plan.validation_releases if num_releases is None else num_releases
    if not num_steps + num_releases:
        return 0.0
    return _epsilon(replace(plan, declared_units=1, sharing=None), num_steps, num_releases, plan.target_delta)


@lru_cache(maxsize=256)
def epsilon_rdp(plan: PrivacyPlan) -> float:
    """Return epsilon of the whole plan by Renyi accounting (Mironov, arXiv 1702.07476): a looser, independent check."""
    orders = range(2, 257)  # integers only: dp-accounting's series for fractions does not converge at little noise
    accountant = RdpAccountant(orders, NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(event(plan, plan.num_steps, plan.validation_releases))
    return round_up(accountant.get_epsilon(plan.target_delta))


def calibrate(plan: PrivacyPlan, target_epsilon: float) -> PrivacyPlan:
    """Return a copy, without sharing, with the least noise that keeps all of its steps within ``target_epsilon``.

    The noise is rounded up to four digits, and the plan computes with the rounded value. There is no discount for
    rounds that an institution might miss, nor for client sampling: the server knows which institutions took part.

    Raises:
        ValueError: no noise multiplier up to 10,000 reaches the target.
    """
    if not (math.isfinite(target_epsilon) and target_epsilon > 0):
        raise ValueError(f"target_epsilon={target_epsilon!r} must be finite and above 0")

    grid = _COARSE if target_epsilon >= 0.5 else _FINE  # the coarse grid adds too much for a small target

    def spends(noise_multiplier: float) -> float:
        candidate = replace(plan, noise_multiplier=noise_multiplier, sharing=None)
        return float(
            _composed(candidate, plan.num_steps, plan.validation_releases, grid).get_epsilon(plan.target_delta)
        )

    low = high = 1.0
    if plan.validation_releases and spends(_MAX_NOISE_MULTIPLIER) > target_epsilon:
        raise ValueError(f"{plan.validation_releases} validation releases alone pass target_epsilon={target_epsilon}")
    while spends(high) > target_epsilon:
        low, high = high, 2 * high
        if high > _MAX_NOISE_MULTIPLIER:
            raise ValueError(
                f"target_epsilon={target_epsilon} at target_delta={plan.target_delta} is not reached by any noise "
                f"multiplier up to {_MAX_NOISE_MULTIPLIER:.0f} over {plan.num_steps} steps"
            )
    while spends(low) <= target_epsilon:
        low, high = low / 2, low
    tolerance = 0.1 * 10**-_DIGITS
    root = brentq(lambda noise: math.log(max(spends(noise), 1e-12) / target_epsilon), low, high, xtol=tolerance)
    calibrated = replace(plan, noise_multiplier=round_up(root), sharing=None)
    while epsilon(calibrated) > target_epsilon:  # the stated epsilon, itself rounded up, stays in the target
        calibrated = replace(calibrated, noise_multiplier=round_up(calibrated.noise_multiplier + 10**-_DIGITS))
    return calibrated


def attack_true_positive_rate(plan: PrivacyPlan, false_positive_rate: float) -> float:
    """Return a bound on any membership attack's true-positive rate at a false-positive rate, from the composed PLD.

    The trade-off function of a mechanism lies below e^epsilon * FPR + delta(epsilon) for every epsilon (Kairouz et
    al., arXiv 1311.0776, theorem 2.1). The result is the least of these bounds over a grid.
    """
    grid = [0.02 * index for index in range(1, 1001)]
    deltas = _composed(plan, plan.num_steps, plan.validation_releases).get_delta(grid)
    bounds = (math.exp(value) * false_positive_rate + delta for value, delta in zip(grid, deltas, strict=True))
    return float(min(1.0, *bounds))


def signal_to_noise_share(plan: PrivacyPlan) -> float:
    """Return the signal-to-noise ratio of the mean gradient over all steps, as a share of the best at this epsilon.

    The ratio is q * sqrt(T) / noise_multiplier. The best is that of full-batch descent: 1 / noise_multiplier of a
    single unsampled step with the same epsilon (docs/decisions.md, "few large steps").
    """
    least_noise = _gaussian_noise_multiplier(epsilon(plan), plan.target_delta)
    return plan.sampling_probability * math.sqrt(plan.num_steps) / plan.noise_multiplier * least_noise


def _gaussian_noise_multiplier(target_epsilon: float, delta: float) -> float:
    """Return the exact least noise of one unsampled Gaussian release (Balle and Wang, arXiv 1805.06530, theorem 8)."""

    def excess(log_noise: float) -> float:
        noise = math.exp(log_noise)
        spent = norm.cdf(0.5 / noise - target_epsilon * noise) - math.exp(
            target_epsilon + norm.logcdf(-0.5 / noise - target_epsilon * noise)
        )
        return float(spent) - delta

    return math.exp(brentq(excess, math.log(1e-3), math.log(1e5)))
