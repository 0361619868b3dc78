"""The lower bound on epsilon: below every accountant, and near enough to refuse what is absurd."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from support.toy import make_plan

from confide.common.privacy.accounting import epsilon, epsilon_rdp
from confide.common.privacy.least import least_epsilon


@settings(max_examples=10)
@given(q=st.floats(1e-3, 1), steps=st.integers(1, 300), noise=st.floats(0.8, 8), releases=st.integers(0, 3))
def test_it_is_below_both_accountants(q: float, steps: int, noise: float, releases: int) -> None:
    plan = make_plan(
        sampling_probability=q, num_steps=steps, noise_multiplier=noise, validation_releases=releases, target_delta=1e-5
    )
    assert 0 <= least_epsilon(plan) <= epsilon_rdp(plan)
    assert least_epsilon(plan) <= epsilon(plan) or least_epsilon(plan) < 1e-3


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.0])
def test_without_sampling_it_is_nearly_the_exact_epsilon(noise: float) -> None:
    """The Gaussian mechanism's own delta at what is found is at least the plan's (Balle and Wang, theorem 8)."""
    plan = make_plan(sampling_probability=1.0, num_steps=4, noise_multiplier=2 * noise, target_delta=1e-5)
    found = least_epsilon(plan)

    def delta(value: float) -> float:
        return float(norm.sf(value * noise - 0.5 / noise) - math.exp(value) * norm.sf(value * noise + 0.5 / noise))

    assert delta(found) >= 1e-5 > delta(found * 1.01)


@pytest.mark.parametrize(
    ("noise", "steps", "q"), [(0.1, 1000, 1.0), (0.1, 1000, 1e-4), (0.3, 1000, 0.25), (0.3, 9, 0.01)]
)
def test_an_absurd_plan_costs_more_than_any_institution_would_allow(noise: float, steps: int, q: float) -> None:
    plan = make_plan(noise_multiplier=noise, num_steps=steps, sampling_probability=q, target_delta=1e-5)
    assert least_epsilon(plan) > 10


@pytest.mark.parametrize(
    ("q", "steps", "noise", "expected"),
    [
        (0.1, 40, 1.274, 2.5033),
        (0.01, 1000, 0.5, 6.3928),
        (1e-4, 1000, 0.1, 77.0871),
        (0.5, 10, 1.0, 10.2241),
    ],
)
def test_the_bound_of_some_plans_to_its_last_digit(q: float, steps: int, noise: float, expected: float) -> None:
    """As first computed. A looser bound lets plans through to a slow accountant; a higher one may refuse too much."""
    plan = make_plan(sampling_probability=q, num_steps=steps, noise_multiplier=noise, target_delta=1e-5)
    assert least_epsilon(plan) == expected


def test_validation_counts_are_an_attack_of_their_own() -> None:
    plan = make_plan(num_steps=1, noise_multiplier=100.0, validation_releases=7, validation_noise_multiplier=2.0)
    assert least_epsilon(plan) == 6.0721


def test_validation_counts_with_hardly_any_noise_are_seen_too() -> None:
    plan = make_plan(num_steps=1, noise_multiplier=100.0, validation_releases=50, validation_noise_multiplier=0.1)
    assert least_epsilon(plan) > 1000
    assert least_epsilon(make_plan(num_steps=1, noise_multiplier=100.0)) < 0.01
