"""Lower bounds on epsilon from an attacker's guesses: pure functions of counts."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from dp_accounting import NeighboringRelation
from dp_accounting.pld import PLDAccountant
from numpy.typing import NDArray
from scipy.stats import beta, binom

from confide.common.privacy import accounting
from confide.common.privacy.least import least_epsilon
from confide.common.privacy.plan import PrivacyPlan

LARGEST = 30.0  # epsilons above it are not told apart: composing so little noise takes minutes
_GRID = 5e-3  # of the privacy loss, rounded up: so a bound here comes out low (by 1e-4 of a hit rate), never high
_EXACT = 8.0  # above it `least_epsilon` has to do, which is lower; composing exactly takes seconds each time
_EPSILONS = np.arange(0.0, 12.0, 0.02)
_PARTS = 32  # noise multipliers are tried at this many places between one and its double
_MOST_TIMES = 6  # doublings of the plan's noise


def one_run(num_canaries: int, num_guesses: int, num_correct: int, delta: float, confidence: float) -> float:
    """Return the lower bound of Steinke, Nasr and Jagielski (arXiv 2305.08846, theorem 5.2), rounded down.

    Holds for any mechanism that is (epsilon, ``delta``)-differentially private, and any attack: each canary was in with
    probability 1/2, by a coin of its own; the attacker guesses some of them, and sees whatever the run gives out.

    >>> round(one_run(1000, 1000, 1000, 1e-5, 0.95), 2)
    5.78
    """
    low, high = 0.0, 50.0
    if one_run_chance(num_canaries, num_guesses, num_correct, low, delta) > 1 - confidence:
        return 0.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        if one_run_chance(num_canaries, num_guesses, num_correct, middle, delta) <= 1 - confidence:
            low = middle
        else:
            high = middle
    return math.floor(low * 1e3) / 1e3


def one_run_chance(num_canaries: int, num_guesses: int, num_correct: int, epsilon: float, delta: float) -> float:
    """Return a bound on the chance of so many right guesses under (epsilon, delta)-differential privacy."""
    right = 1 / (1 + math.exp(-epsilon))
    as_many = float(binom.sf(num_correct - 1, num_guesses, right))
    fewer = np.arange(1, num_correct + 1)
    gained = (binom.sf(num_correct - 1 - fewer, num_guesses, right) - as_many) / fewer
    return min(1.0, as_many + 2 * num_canaries * delta * float(gained.max(initial=0.0)))


@dataclass(frozen=True)
class Tally:
    """Guesses on independent trials: accused members of all members, and accused outsiders of all outsiders."""

    hits: int
    members: int
    alarms: int
    outsiders: int

    @classmethod
    def of(cls, accused: NDArray[np.bool], inside: NDArray[np.bool]) -> "Tally":
        """Count the accused."""
        hits, members = int((accused & inside).sum()), int(inside.sum())
        return cls(hits, members, int(accused.sum()) - hits, len(inside) - members)

    def surely(self, confidence: float) -> tuple[float, float]:
        """Return a hit rate that is surely reached, and a false-alarm rate that surely is not passed.

        Both hold together (Clopper and Pearson 1934, half of the risk each).
        """
        risk = (1 - confidence) / 2
        least = beta.ppf(risk, self.hits, self.members - self.hits + 1) if self.hits else 0.0
        spared = self.outsiders - self.alarms
        most = beta.ppf(1 - risk, self.alarms + 1, spared) if spared else 1.0
        return float(least), float(most)


def of_trials(tally: Tally, plan: PrivacyPlan, num_steps: int, confidence: float) -> float:
    """Return the epsilon of the whole plan with the most noise that still agrees with the guesses.

    The guesses are about ``num_steps`` steps. For less and less noise the accountant's curve of hits against false
    alarms rises (`most_hits`); noise whose curve the guesses pass is refuted. So this is a lower bound if each step is
    the sampled Gaussian mechanism of the plan with some noise, and trials are independent. Both are what
    `privacy.step` promises; whatever refutes the stated noise has broken that promise.

    Returns:
        Epsilon, rounded down to the next noise that was tried; a little below `LARGEST` if it is larger than that.
    """
    hits, alarms = tally.surely(confidence)

    def refuted(place: int) -> bool:
        tried = _with_noise(plan, place)
        more = hits > most_hits(tried, num_steps, alarms)
        return more or 1 - alarms > most_hits(tried, num_steps, 1 - hits)

    low, high = -_MOST_TIMES * _PARTS, _MOST_TIMES * _PARTS
    if not refuted(high):
        return 0.0
    while high - low > 1:
        middle = (low + high) // 2
        if not _is_large(_with_noise(plan, middle)) and refuted(middle):
            high = middle
        else:
            low = middle
    found = _with_noise(plan, high)
    least = least_epsilon(found)
    return least if least > _EXACT else accounting.epsilon(found, num_releases=0)


def most_hits(plan: PrivacyPlan, num_steps: int, false_alarms: float) -> float:
    """Return a bound on any attack's hit rate at a false-alarm rate, over so many steps of a plan.

    As `accounting.attack_true_positive_rate`, for many rates in little time.
    """
    deltas = _deltas(plan.sampling_probability, plan.noise_multiplier, num_steps)
    return float(min(1.0, np.min(np.exp(_EPSILONS) * false_alarms + deltas)))


@lru_cache(maxsize=1024)
def _deltas(sampling_probability: float, noise_multiplier: float, num_steps: int) -> NDArray[np.float64]:
    plan = PrivacyPlan("record", sampling_probability, num_steps, 1, 1.0, "abadi", noise_multiplier, 0.5)
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=_GRID)
    accountant.compose(accounting.event(plan, num_steps, 0))
    return np.array(accountant.get_delta(list(_EPSILONS)))


def _with_noise(plan: PrivacyPlan, place: int) -> PrivacyPlan:
    noise = min(1e6, max(1e-3, plan.noise_multiplier * 2 ** (place / _PARTS)))
    return replace(plan, noise_multiplier=noise, validation_releases=0, sharing=None)


def _is_large(plan: PrivacyPlan) -> bool:
    return least_epsilon(plan) > LARGEST
