"""The least cost of a plan: a lower bound on epsilon that takes milliseconds for every plan."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy.stats import binom, norm

from confide.common.privacy.plan import PrivacyPlan

_THRESHOLDS = 128
_ROUNDING = 1e-9  # taken off the probability of a hit; far above the error of its sum


@lru_cache(maxsize=256)  # every answer of a round is decided anew: 40 ms each, a fifth of a simulated round
def least_epsilon(plan: PrivacyPlan) -> float:
    """Return a lower bound on epsilon at the plan's delta, below which no accountant can go, rounded down.

    Any attack gives P(hit) <= e^epsilon * P(false alarm) + delta (Kairouz et al., arXiv 1311.0776, theorem 2.1), and so
    a lower bound. Each attack is tried with a grid of thresholds. It looks at the steps, or at the validation counts
    alone, in the direction of a unit whose gradient always has the clip norm.

    A composed privacy-loss distribution of an absurd plan takes minutes and gigabytes (measured: 88 s and 3.8 GB). So
    an institution computes this bound first.

    >>> least_epsilon(PrivacyPlan("record", 1.0, 1, 20, 1.0, "automatic", 1.0, 1e-5))  # exactly 4.3771
    4.3754
    """
    attacks = [*_by_sum(plan), *_by_maximum(plan)]
    if plan.validation_releases:
        noise, releases = plan.validation_noise_multiplier, plan.validation_releases
        counts = replace(plan, sampling_probability=1.0, num_steps=releases, noise_multiplier=noise, sharing=None)
        attacks += _by_sum(counts)
    found = 0.0
    for hit, log_false_alarm in attacks:
        excess = hit - _ROUNDING - plan.target_delta
        if excess > 0:
            found = max(found, math.log(excess) - log_false_alarm)
    return math.floor(found * 1e4) / 1e4


def _by_sum(plan: PrivacyPlan) -> Iterator[tuple[float, float]]:
    """Yield hits, and the logarithm of false alarms, of "the sum of all steps is above a threshold".

    A unit that is present is drawn in a binomial number of steps. Each adds 1 to noise of standard deviation
    ``noise_multiplier * sqrt(steps)``. At a sampling probability of 1 no attack is better.
    """
    steps, q = plan.num_steps, plan.sampling_probability
    spread, noise = math.sqrt(steps * q * (1 - q)), plan.noise_multiplier * math.sqrt(steps)
    draws = np.arange(max(0, math.floor(steps * q - 12 * spread)), min(steps, math.ceil(steps * q + 12 * spread)) + 1)
    chances = binom.pmf(draws, steps, q)
    width = 6 * math.hypot(spread, noise)
    for threshold in np.linspace(steps * q - width, steps * q + width, _THRESHOLDS):
        yield float(chances @ norm.sf((threshold - draws) / noise)), float(norm.logsf(threshold / noise))


def _by_maximum(plan: PrivacyPlan) -> Iterator[tuple[float, float]]:
    """Yield hits, and the logarithm of false alarms, of "some step is above a threshold": better for rare draws."""
    steps, q, noise = plan.num_steps, plan.sampling_probability, plan.noise_multiplier
    for threshold in np.linspace(0, 1 + 6 * noise, _THRESHOLDS):
        absent, drawn = norm.sf(threshold / noise), norm.sf((threshold - 1) / noise)
        hit = -math.expm1(steps * math.log1p(-min((1 - q) * absent + q * drawn, 1 - 1e-15)))
        # At most one false alarm for each step: the union bound, which is finite when 1 - (1 - x)**T rounds to 0.
        yield hit, min(0.0, math.log(steps) + float(norm.logsf(threshold / noise)))
