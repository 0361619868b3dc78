import gc
import math
from dataclasses import replace

import pytest
from dp_accounting.pld import PLDAccountant
from opacus.accountants import RDPAccountant
from scipy.optimize import brentq
from scipy.stats import norm
from support.toy import make_plan

from confide.common.privacy.accounting import (
    attack_true_positive_rate,
    calibrate,
    epsilon,
    epsilon_rdp,
    signal_to_noise_share,
)
from confide.common.privacy.plan import PrivacyPlan

# sampling probability, noise multiplier, steps, delta, epsilon by PLD, by RDP: dp-accounting 0.6, add or remove one
PUBLISHED = [
    (0.01, 1.0, 1000, 1e-5, 1.8282, 2.1014),
    (0.01, 1.0, 10_000, 1e-5, 6.1877, 6.7128),
    (0.02, 0.8, 500, 1e-5, 4.6680, 5.3719),
    (0.05, 1.0, 200, 1e-5, 4.7659, 5.3679),
    (0.0256, 1.1, 400, 1e-5, 2.6899, 3.0178),
    (0.064, 1.5, 200, 1e-4, 2.6043, 2.9321),
    (0.2, 4.0, 100, 1e-5, 2.1021, 2.2982),
    (1.0, 10.0, 100, 1e-5, 4.3772, 4.7285),
]


def _plan(q: float, noise_multiplier: float, num_steps: int, delta: float = 1e-5) -> PrivacyPlan:
    return make_plan(sampling_probability=q, noise_multiplier=noise_multiplier, num_steps=num_steps, target_delta=delta)


def _exact_epsilon(stddev: float, delta: float) -> float:
    """Of one Gaussian mechanism, in closed form (Balle and Wang, arXiv 1805.06530, theorem 8)."""

    def excess(eps: float) -> float:
        above, below = 0.5 / stddev - eps * stddev, -0.5 / stddev - eps * stddev
        return float(norm.cdf(above) - math.exp(eps) * norm.cdf(below) - delta)

    return float(brentq(excess, 0, 50))


@pytest.mark.parametrize(("q", "noise_multiplier", "num_steps", "delta", "pld", "rdp"), PUBLISHED)
def test_epsilon_is_that_of_published_values(
    q: float, noise_multiplier: float, num_steps: int, delta: float, pld: float, rdp: float
) -> None:
    plan = _plan(q, noise_multiplier, num_steps, delta)
    assert 0.999 * pld <= epsilon(plan) <= 1.01 * pld
    assert epsilon_rdp(plan) == pytest.approx(rdp, rel=0.01)
    assert epsilon_rdp(plan) >= epsilon(plan)


def test_epsilon_rdp_is_dp_accounting_s_own_vector() -> None:
    plan = _plan(1.0, 4.530877117, 1, 1e-6)
    assert epsilon_rdp(plan) == pytest.approx(1.0, abs=2e-4)
    assert epsilon(plan) <= 1.0


@pytest.mark.parametrize(("noise_multiplier", "num_steps"), [(4.530877117, 1), (1.0, 1), (10.0, 100), (20.0, 7)])
def test_epsilon_without_sampling_brackets_the_closed_form(noise_multiplier: float, num_steps: int) -> None:
    """Gaussian mechanisms compose to one Gaussian mechanism of noise_multiplier / sqrt(steps)."""
    exact = _exact_epsilon(noise_multiplier / math.sqrt(num_steps), 1e-6)
    assert exact <= epsilon(_plan(1.0, noise_multiplier, num_steps, 1e-6)) <= 1.01 * exact + 1e-4


@pytest.mark.parametrize(("q", "noise_multiplier", "num_steps"), [(0.1, 2.178, 200), (0.02, 0.8, 500)])
def test_opacus_accountant_agrees(q: float, noise_multiplier: float, num_steps: int) -> None:
    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, q, num_steps)]
    plan = _plan(q, noise_multiplier, num_steps)
    assert epsilon(plan) <= accountant.get_epsilon(delta=1e-5) == pytest.approx(epsilon_rdp(plan), rel=0.01)


def test_the_figures_of_the_guarantee() -> None:
    """What bugs would cost at q=0.1, noise multiplier 2.178, 200 steps, delta 1e-5."""
    assert epsilon(_plan(0.1, 2.178, 200)) == pytest.approx(3.00, abs=0.005)
    assert epsilon(_plan(0.1, 2.178 / math.sqrt(5), 40)) == pytest.approx(4.94, abs=0.01)  # one mask for five steps
    assert epsilon(_plan(0.1, 2.178 / 2, 200)) == pytest.approx(8.54, abs=0.01)  # clipped in two micro-batches


def test_epsilon_counts_steps() -> None:
    plan = _plan(0.1, 2.178, 200)
    spent = [epsilon(plan, num_steps) for num_steps in (0, 1, 100, 200)]
    assert spent[0] == 0
    assert spent == sorted(set(spent))
    assert spent[-1] == epsilon(plan)


def test_as_many_releases_as_steps_cost_more_than_either() -> None:
    plan = replace(_plan(0.1, 2.178, 200), validation_noise_multiplier=20.0)
    assert epsilon(plan, 5, 5) > max(epsilon(plan, 5, 0), epsilon(plan, 0, 5)) > 0


def test_noise_is_calibrated_for_validation_releases_too() -> None:
    alone = replace(_plan(0.2, 1.0, 20), validation_noise_multiplier=20.0)
    both = replace(alone, validation_releases=4)
    assert calibrate(both, 3.0).noise_multiplier > calibrate(alone, 3.0).noise_multiplier
    assert epsilon(calibrate(both, 3.0)) <= 3.0


def test_validation_releases_that_pass_a_target_alone_are_named() -> None:
    plan = replace(_plan(0.2, 1.0, 20), validation_releases=4, validation_noise_multiplier=0.5)
    with pytest.raises(ValueError, match=r"4 validation releases alone pass target_epsilon=3\.0"):
        calibrate(plan, 3.0)


def test_epsilon_is_rounded_up_to_four_digits() -> None:
    value = epsilon(_plan(0.2, 4.0, 100))
    assert value == round(value, 4) >= 2.10205


def test_a_delta_below_what_accounting_resolves_gives_infinite_epsilon() -> None:
    assert epsilon(_plan(0.1, 2.178, 200, delta=1e-30)) == math.inf


def test_a_target_that_no_noise_reaches_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="target_epsilon"):
        calibrate(_plan(0.1, 1.0, 200, delta=1e-30), 3.0)
    for target in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="must be finite and above 0"):
            calibrate(_plan(0.1, 1.0, 200), target)


@pytest.mark.parametrize("target", [1.0, 3.0, 8.0])
def test_calibrated_noise_is_the_least_that_keeps_the_target(target: float) -> None:
    plan = calibrate(_plan(0.2, 1.0, 50), target)
    assert plan.noise_multiplier == round(plan.noise_multiplier, 4)
    assert epsilon(plan) <= target
    assert epsilon(replace(plan, noise_multiplier=plan.noise_multiplier - 3e-4)) > target


@pytest.mark.parametrize("target", [2.99995, 2.00001, 1.23456789])
def test_the_stated_epsilon_keeps_a_target_of_more_than_four_digits(target: float) -> None:
    """Epsilon is rounded up when it is stated: what a policy compares must still be within the target."""
    assert epsilon(calibrate(_plan(0.2, 1.0, 50), target)) <= target


def test_calibration_is_for_the_maximum_that_may_run() -> None:
    """No discount for steps that might not happen: more steps always need more noise."""
    noise = [calibrate(_plan(0.2, 1.0, steps), 3.0).noise_multiplier for steps in (10, 20, 40)]
    assert noise == sorted(set(noise))


def test_an_attack_s_true_positive_rate_is_bounded() -> None:
    strong, weak = _plan(0.1, 4.0, 100), _plan(0.1, 1.0, 100)
    assert 0.01 < attack_true_positive_rate(strong, 0.01) < attack_true_positive_rate(weak, 0.01) <= 1
    assert attack_true_positive_rate(strong, 0.5) <= 1


def test_no_attack_finds_more_than_everybody() -> None:
    assert attack_true_positive_rate(_plan(1.0, 0.5, 10), 0.9) == 1.0


def test_an_attack_on_one_gaussian_mechanism_meets_its_bound() -> None:
    """The best attack on one unsampled step has power Phi(Phi^-1(FPR) + 1 / noise_multiplier)."""
    for rate in (0.01, 0.1):
        exact = norm.cdf(norm.ppf(rate) + 1 / 1.5)
        assert exact <= attack_true_positive_rate(_plan(1.0, 1.5, 1), rate) <= 1.02 * exact


def test_few_large_steps_beat_many_small_ones() -> None:
    small, large = (calibrate(_plan(q, 1.0, steps), 3.0) for q, steps in ((0.02, 300), (0.1, 200)))
    assert signal_to_noise_share(small) == pytest.approx(0.55, abs=0.02)
    assert signal_to_noise_share(large) == pytest.approx(0.90, abs=0.02)


def test_memory_does_not_grow_with_the_number_of_evaluations() -> None:
    """Each tells the epsilon after another number of steps, and a composition takes megabytes."""

    def kept() -> int:
        gc.collect()
        return sum(isinstance(found, PLDAccountant) for found in gc.get_objects())

    plan = _plan(0.1, 8.0, 40)
    counts = {step: kept() for step in range(1, 13) if epsilon(plan, step) > 0 and step >= 9}
    assert len(counts) == 4
    assert max(counts.values()) == counts[9]
