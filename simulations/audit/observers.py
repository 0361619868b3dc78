"""Scores that an attacker gives each canary from what was seen, and guesses made of scores."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import binom

from confide.common.privacy.plan import PrivacyPlan
from confide.simulations.audit.bounds import Tally

Scores = NDArray[np.float64]  # (trials,): the higher, the likelier inside
Inside = NDArray[np.bool]
Curve = Callable[[float], float]  # the most hits that a promise allows at a false-alarm rate
_THRESHOLDS = 200


def likelihood_ratio(seen_RM: NDArray[np.float64], plan: PrivacyPlan, local_steps: int) -> Scores:
    """Return the best attacker's score: the logarithm of how much likelier the numbers are with the canary than not.

    Each number is a sum over ``local_steps`` draws, with their noise (Neyman and Pearson 1933: no test is better).

    Args:
        seen_RM: rounds by canaries, in clip norms.
        plan: the noise that is promised.
        local_steps: of a round.
    """
    variance = local_steps * plan.noise_multiplier**2
    draws_K = np.arange(local_steps + 1)
    chances_K = binom.logpmf(draws_K, local_steps, plan.sampling_probability)
    score_M = np.zeros(seen_RM.shape[1])
    for seen_M in seen_RM:
        gains_KM = (np.outer(draws_K, seen_M) - draws_K[:, None] ** 2 / 2) / variance
        score_M += logsumexp(chances_K[:, None] + gains_KM, axis=0)
    return score_M


def one_mask_ratio(seen_RM: NDArray[np.float64], plan: PrivacyPlan, local_steps: int) -> Scores:
    """Return the best attacker's score if a unit is in all steps of a round or in none: a mistake (`draw_units`)."""
    variance = local_steps * plan.noise_multiplier**2
    gains_RM = (local_steps * seen_RM - local_steps**2 / 2) / variance
    q = max(1e-300, 1 - plan.sampling_probability), plan.sampling_probability
    return np.asarray(np.logaddexp(math.log(q[0]), math.log(q[1]) + gains_RM).sum(axis=0))


def spread(seen_RM: NDArray[np.float64]) -> Scores:
    """Return how much a canary's number changes between rounds: noise that is used again does not hide who is drawn."""
    return np.asarray(seen_RM.var(axis=0))


def accused_above(scores: Scores, inside: Inside, threshold: float) -> Tally:
    """Return the guesses of one who accuses all above a threshold that was fixed before."""
    return Tally.of(scores > threshold, inside)


def learned(scores: Scores, inside: Inside, curve: Curve) -> Tally:
    """Return the guesses of one who learns threshold and side on the first half of the trials, and guesses the second.

    Learnt is where the first half passes the promised curve the most. The second half decides nothing about that, so
    its trials are as good as new.
    """
    half = len(scores) // 2
    tried = [(side, *_surest_threshold(side * scores[:half], inside[:half], curve)) for side in (1.0, -1.0)]
    side, _, threshold = max(tried, key=lambda one: one[1])
    return Tally.of(side * scores[half:] > threshold, inside[half:])


def _surest_threshold(scores: Scores, inside: Inside, curve: Curve) -> tuple[float, float]:
    """Return by how many standard deviations the guesses above the best threshold pass the curve, and the threshold."""
    values = np.unique(scores)
    thresholds = np.append(-np.inf, (values[1:] + values[:-1]) / 2)
    thresholds = thresholds[np.unique(np.linspace(0, len(thresholds) - 1, _THRESHOLDS).astype(int))]
    members, outsiders = np.sort(scores[inside]), np.sort(scores[~inside])
    hits = 1 - np.searchsorted(members, thresholds, side="right") / max(1, len(members))
    alarms = 1 - np.searchsorted(outsiders, thresholds, side="right") / max(1, len(outsiders))
    doubt = np.sqrt((hits * (1 - hits) + alarms * (1 - alarms) + 4 / len(scores)) / len(scores))
    gains = (hits - np.array([curve(rate) for rate in alarms])) / doubt
    place = int(np.argmax(gains))
    return float(gains[place]), float(thresholds[place])


def surest(scores: Scores, inside: Inside, share: float) -> tuple[int, int]:
    """Return guesses on the surest: so many, and how many are right. Half are the highest scores, half the lowest."""
    each = max(1, math.floor(len(scores) * share / 2))
    order = np.argsort(scores, kind="stable")
    return 2 * each, int(inside[order[-each:]].sum() + (~inside[order[:each]]).sum())
