"""Lower bounds: the formula against sums in whole numbers, the curve, and how much they prove."""

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import norm
from support.toy import make_plan

from confide.common.privacy.accounting import attack_true_positive_rate, epsilon
from confide.simulations.audit.bounds import LARGEST, Tally, most_hits, of_trials, one_run, one_run_chance


def _by_hand(m: int, guesses: int, right: int, odds: Fraction, delta: Fraction) -> Fraction:
    """The chance in whole numbers, term by term; odds are e to the epsilon."""
    q = odds / (1 + odds)

    def at_least(number: int) -> Fraction:
        start = max(0, number)
        return sum(
            (math.comb(guesses, k) * q**k * (1 - q) ** (guesses - k) for k in range(start, guesses + 1)), Fraction(0)
        )

    alpha = max(((at_least(right - i) - at_least(right)) / i for i in range(1, right + 1)), default=Fraction(0))
    return min(Fraction(1), at_least(right) + 2 * m * delta * alpha)


@pytest.mark.parametrize(("m", "guesses", "right"), [(20, 20, 15), (30, 12, 12), (50, 25, 13), (10, 10, 0), (9, 1, 1)])
@pytest.mark.parametrize(("odds", "delta"), [(2, "1e-5"), (3, "1/100"), (20, "0")])
def test_the_chance_of_one_run_is_that_of_sums_in_whole_numbers(
    m: int, guesses: int, right: int, odds: int, delta: str
) -> None:
    found = one_run_chance(m, guesses, right, math.log(odds), float(Fraction(delta)))
    assert found == pytest.approx(float(_by_hand(m, guesses, right, Fraction(odds), Fraction(delta))), rel=1e-9)


@pytest.mark.parametrize(("m", "most"), [(50, 2.78), (100, 3.49), (200, 4.19), (500, 5.10), (1000, 5.78), (2000, 6.45)])
def test_right_guesses_alone_prove_at_most_the_known_maximum(m: int, most: float) -> None:
    assert one_run(m, m, m, 1e-5, 0.95) == pytest.approx(most, abs=0.006)


def test_guesses_by_a_coin_prove_nothing() -> None:
    assert one_run(1000, 200, 100, 1e-5, 0.95) == 0.0
    assert of_trials(Tally(50, 100, 50, 100), make_plan(), 10, 0.95) == 0.0


def test_the_curve_is_the_accountant_s() -> None:
    plan = make_plan(num_steps=10)
    for rate in (0.01, 0.1, 0.5):
        assert most_hits(plan, 10, rate) == pytest.approx(attack_true_positive_rate(plan, rate), abs=3e-3)


def _exact(noise: float, trials: int) -> Tally:
    """The best guesses on a release of one Gaussian, as many as are expected."""
    threshold = 0.5
    hits, alarms = norm.sf((threshold - 1) / noise), norm.sf(threshold / noise)
    return Tally(round(trials * hits), trials, round(trials * alarms), trials)


def test_many_exact_guesses_prove_almost_all_of_what_is_stated_and_no_more() -> None:
    plan = make_plan(sampling_probability=1.0, num_steps=1, noise_multiplier=1.5)
    found = of_trials(_exact(1.5, 100_000), plan, 1, 0.95)
    assert 0.93 * epsilon(plan) < found <= epsilon(plan)
    assert of_trials(_exact(1.0, 100_000), plan, 1, 0.95) > epsilon(plan)


def test_few_steps_are_stated_for_all_of_them() -> None:
    plan = make_plan(sampling_probability=1.0, num_steps=16, noise_multiplier=6.0)
    assert of_trials(_exact(6.0, 10**6), plan, 1, 0.95) == pytest.approx(epsilon(plan), rel=0.06)


def test_what_no_noise_explains_is_bounded_just_below_the_largest() -> None:
    assert 0.95 * LARGEST < of_trials(Tally(500, 500, 0, 500), make_plan(num_steps=4), 4, 0.95) <= LARGEST


@pytest.mark.parametrize(("hits", "alarms"), [(0, 0), (20, 20), (13, 4)])
def test_both_rates_hold_together_with_the_confidence(hits: int, alarms: int) -> None:
    least, most = Tally(hits, 20, alarms, 20).surely(0.95)
    chance = np.random.default_rng(0)
    # At the ends of the interval so many hits, or so few alarms, come with at most half of the risk each.
    assert hits == 0 or (chance.binomial(20, least, 200_000) >= hits).mean() <= 0.0255
    assert alarms == 20 or (chance.binomial(20, most, 200_000) <= alarms).mean() <= 0.0255
