"""The filter against dp-accounting by hand and against the closed formula of Renyi divergence."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import accounts
from support.accounts import Spending
from support.toy import make_plan

from confide.common.privacy.filter import (
    Cap,
    Charge,
    choose_order,
    composed_epsilon,
    filter_epsilon,
    fits_filter,
    spent,
)
from confide.common.privacy.plan import PrivacyPlan

SMALL = make_plan(sampling_probability=0.2, noise_multiplier=2.0, num_steps=6)
PLANS = [
    make_plan(sampling_probability=0.1, noise_multiplier=1.274, num_steps=40),
    replace(SMALL, validation_releases=3, validation_noise_multiplier=8.0),
    make_plan(sampling_probability=1.0, noise_multiplier=4.0, num_steps=4),
    make_plan(sampling_probability=0.02, noise_multiplier=0.8, num_steps=500),
]
CAPS = [Cap(0.5, 1e-5), Cap(1.5, 1e-5), Cap(4.0, 1e-6), Cap(8.0, 1e-5), Cap(30.0, 1e-5)]
charges = st.builds(
    lambda q, noise, steps, releases: Charge(
        make_plan(sampling_probability=q, noise_multiplier=noise), steps, releases
    ),
    st.floats(1e-4, 1.0),
    st.floats(0.5, 20.0),
    st.integers(0, 500),
    st.integers(0, 20),
)
orders = st.integers(2, 256)
# Few values, so that every composition is made once.
small_charges = st.builds(Charge, st.sampled_from([SMALL, PLANS[2]]), st.integers(0, 3), st.integers(0, 1))


def whole(plan: PrivacyPlan) -> Charge:
    return Charge(plan, plan.num_steps, plan.validation_releases)


def admits(items: list[Charge], cap: Cap, order: int) -> bool:
    """Whether one account may hold these charges."""
    return spent(items, cap.max_delta, order) <= cap.max_epsilon


def as_spending(charge: Charge) -> Spending:
    plan = charge.plan
    return Spending(
        plan.sampling_probability,
        plan.noise_multiplier,
        charge.num_steps,
        plan.validation_noise_multiplier,
        charge.num_releases,
    )


def by_formula(items: list[Charge], delta: float, order: int) -> float:
    return accounts.filter_epsilon([as_spending(charge) for charge in items], delta, order)


# Within a study


@pytest.mark.parametrize("plan", PLANS)
def test_one_study_costs_what_dp_accounting_says_by_hand(plan: PrivacyPlan) -> None:
    by_hand = accounts.pld_epsilon((as_spending(whole(plan)),), 1e-5)
    assert by_hand <= composed_epsilon([whole(plan)], 1e-5) <= by_hand + 1e-3


def test_delta_is_the_ledger_s_and_not_the_plan_s() -> None:
    other = replace(SMALL, target_delta=1e-3)
    assert composed_epsilon([whole(other)], 1e-5) == composed_epsilon([whole(SMALL)], 1e-5)
    assert composed_epsilon([whole(other)], 1e-6) > composed_epsilon([whole(SMALL)], 1e-5)


def test_composed_pld_of_several_studies_is_an_upper_bound_by_a_thousandth() -> None:
    items = [whole(SMALL), whole(PLANS[2])]
    fine = accounts.pld_epsilon(tuple(map(as_spending, items)), 1e-5)
    assert fine <= composed_epsilon(items, 1e-5) <= fine + 1e-3


def test_within_a_study_pld_decides() -> None:
    """At order 10 the plan's Renyi bound is 1.59, its PLD 1.3."""
    cap = Cap(1.4, 1e-5)
    assert not fits_filter([whole(SMALL)], cap, (10, 10))
    assert admits([whole(SMALL)], cap, 10)
    assert spent([whole(SMALL)], 1e-5, 10) == composed_epsilon([whole(SMALL)], 1e-5)


# Across studies


@settings(max_examples=200)
@given(st.lists(charges, min_size=1, max_size=4), orders, st.sampled_from([1e-5, 1e-9, 1e-2]))
def test_the_filter_is_the_closed_formula_rounded_up(items: list[Charge], order: int, delta: float) -> None:
    exact = by_formula(items, delta, order)
    assert exact * (1 - 1e-9) <= filter_epsilon(items, delta, order) <= exact * (1 + 1e-9) + 1.01e-4


@settings(max_examples=200)
@given(st.lists(charges, min_size=2, max_size=4), orders, st.sampled_from(CAPS))
def test_the_filter_never_admits_what_summed_renyi_divergence_would_not(
    items: list[Charge], order: int, cap: Cap
) -> None:
    relevant = [charge for charge in items if charge.num_steps or charge.num_releases]
    if len(relevant) > 1 and admits(items, cap, order):
        divergence = sum(accounts.renyi(as_spending(charge), order) for charge in relevant)
        assert divergence <= accounts.renyi_budget(cap.max_epsilon, cap.max_delta, order) * (1 + 1e-9)


def test_several_studies_cost_more_by_the_filter_than_by_pld() -> None:
    items = [whole(SMALL), whole(PLANS[2])]
    assert spent(items, 1e-5, 6) == filter_epsilon(items, 1e-5, 6) > composed_epsilon(items, 1e-5)


def test_a_first_study_that_fits_by_pld_alone_blocks_any_other() -> None:
    cap, other = Cap(1.4, 1e-5), Charge(replace(SMALL, noise_multiplier=1e4), 1)
    assert admits([whole(SMALL)], cap, 10)
    assert admits([other], cap, 10)
    assert not admits([whole(SMALL), other], cap, 10)
    assert not admits([other, whole(SMALL)], cap, 10)


# The order


def copies_that_fit(plan: PrivacyPlan, cap: Cap, order: int) -> int:
    one = accounts.renyi(as_spending(whole(plan)), order)
    return int(accounts.renyi_budget(cap.max_epsilon, cap.max_delta, order) / one)


@pytest.mark.parametrize("cap", [Cap(0.5, 1e-5), Cap(4.0, 1e-6), Cap(8.0, 1e-5)])
@pytest.mark.parametrize("plan", PLANS[:3])
def test_the_order_admits_more_than_half_of_what_the_best_order_would(plan: PrivacyPlan, cap: Cap) -> None:
    """Copies of the first plan are doubled until they no longer fit, so a factor of two may be lost and no more."""
    chosen = choose_order(plan, cap)
    assert isinstance(chosen, int)
    best = max(copies_that_fit(plan, cap, order) for order in range(2, 257))
    assert 2 * copies_that_fit(plan, cap, chosen) > min(best, 1024) or best == 0


def test_the_order_depends_on_plan_and_cap_only() -> None:
    """The declared size is no part of the account: institutions of all sizes have the same order."""
    cap = Cap(8.0, 1e-5)
    assert choose_order(SMALL, cap) == choose_order(replace(SMALL, declared_units=10**6), cap)
    assert choose_order(SMALL, Cap(1.5, 1e-5)) > choose_order(SMALL, cap)


def test_a_plan_that_fits_no_cap_still_has_an_order() -> None:
    assert 2 <= choose_order(PLANS[0], Cap(0.01, 1e-5)) <= 256
    assert 2 <= choose_order(PLANS[0], Cap(0.0, 1e-5)) <= 256


# Nothing, and more


def test_nothing_costs_nothing() -> None:
    for items in ([], [Charge(SMALL, 0)], [Charge(SMALL, 0), Charge(PLANS[0], 0, 0)]):
        assert spent(items, 1e-5, 4) == filter_epsilon(items, 1e-5, 4) == composed_epsilon(items, 1e-5) == 0
        assert admits(items, Cap(0.0, 1e-5), 4)


def test_an_empty_charge_beside_a_study_leaves_it_one_study() -> None:
    assert spent([whole(SMALL), Charge(PLANS[0], 0)], 1e-5, 10) == composed_epsilon([whole(SMALL)], 1e-5)


@settings(max_examples=40)
@given(st.lists(small_charges, max_size=3), small_charges, st.sampled_from([4, 10]))
def test_a_charge_more_never_costs_less(items: list[Charge], more: Charge, order: int) -> None:
    assert spent([*items, more], 1e-5, order) >= spent(items, 1e-5, order)


@settings(max_examples=40)
@given(st.lists(small_charges, min_size=1, max_size=3), st.sampled_from([4, 10]))
def test_a_step_more_never_costs_less(items: list[Charge], order: int) -> None:
    longer = [replace(items[0], num_steps=items[0].num_steps + 1), *items[1:]]
    assert spent(longer, 1e-5, order) >= spent(items, 1e-5, order)


@settings(max_examples=40)
@given(st.lists(small_charges, max_size=3), st.sampled_from(CAPS), st.sampled_from(CAPS))
def test_a_higher_cap_admits_whatever_a_lower_one_does(items: list[Charge], one: Cap, other: Cap) -> None:
    low, high = sorted((one, other), key=lambda cap: cap.max_epsilon)
    high = replace(high, max_delta=max(low.max_delta, high.max_delta))
    assert admits(items, high, 6) or not admits(items, low, 6)


def test_the_orders_of_some_plans_are_those_that_ledgers_were_begun_with() -> None:
    """A first row keeps its order for ever; another choice would only count a new ledger worse."""
    bounds = (0.0, 0.01, 0.5, 1.5, 4.0, 8.0, 30.0)
    assert [choose_order(SMALL, Cap(bound, 1e-5)) for bound in bounds] == [10, 10, 10, 10, 6, 4, 2]
    assert [choose_order(PLANS[0], Cap(bound, 1e-5)) for bound in bounds] == [5, 5, 5, 5, 5, 4, 2]


def test_a_spend_that_equals_the_cap_is_within_it() -> None:
    charges = [Charge(SMALL, 6), Charge(PLANS[0], 3)]
    cost = filter_epsilon(charges, 1e-5, 4)
    assert fits_filter(charges, Cap(cost, 1e-5), (4, 4))
    assert not fits_filter(charges, Cap(cost - 1e-4, 1e-5), (4, 4))
    alone = spent(charges[:1], 1e-5, 4)
    assert admits(charges[:1], Cap(alone, 1e-5), 4)
    assert not admits(charges[:1], Cap(alone - 1e-4, 1e-5), 4)
