"""The numbers of the privacy statement: against references, closed forms and numerical integration."""

import math
from dataclasses import replace

import numpy as np
import pytest
from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.pld import PLDAccountant
from scipy.stats import binom, norm
from support.toy import make_plan

from confide.common.privacy.accounting import attack_true_positive_rate, epsilon
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.secure.conditions import epsilon_if_colluding
from confide.common.privacy.statement import (
    epsilon_of_institutions,
    epsilon_of_records,
    statement,
)

# The plan of docs/guarantee.md, and that of run.toml's defaults: epsilon 3.00 both.
REFERENCE = make_plan(sampling_probability=0.1, noise_multiplier=2.178, num_steps=200)
DEFAULT = make_plan(sampling_probability=0.1, noise_multiplier=1.274, num_steps=40)


def _exact_delta(plan: PrivacyPlan, num_records: int, at: float) -> float:
    """Of one step, by integration: density with the records against density without, and the other way round."""
    noise = plan.noise_multiplier
    x = np.linspace(-12 * noise, num_records + 12 * noise, 400_001)
    counts = np.arange(num_records + 1)
    weights = binom.pmf(counts, num_records, plan.sampling_probability)
    absent = norm.pdf(x, scale=noise)
    present = (weights[:, None] * norm.pdf(x, loc=counts[:, None], scale=noise)).sum(axis=0)
    pairs = [(present, absent), (absent, present)]
    return max(float(np.trapezoid(np.maximum(p - math.exp(at) * q, 0), x)) for p, q in pairs)


def _is_tight(plan: PrivacyPlan, num_records: int, value: float) -> bool:
    """Whether epsilon is an upper bound of the exact one, by 1 % at most; ``plan`` has one step."""
    assert plan.num_steps == 1
    above, below = (_exact_delta(plan, num_records, at) for at in (value, 0.99 * value))
    return above <= plan.target_delta < below


def test_a_person_in_several_institutions_pays_the_reference_figures() -> None:
    assert epsilon_of_institutions(REFERENCE, 2) == pytest.approx(4.38, abs=0.005)
    assert epsilon_of_institutions(REFERENCE, 4) == pytest.approx(6.48, abs=0.005)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_institutions_compose_like_as_many_times_the_steps_and_releases(count: int) -> None:
    plan = replace(DEFAULT, validation_releases=5, validation_noise_multiplier=4.0)
    longer = epsilon(plan, count * plan.num_steps, count * plan.validation_releases)
    assert longer <= epsilon_of_institutions(plan, count) <= longer + 5e-4
    assert epsilon_of_institutions(plan, count) > epsilon_of_institutions(DEFAULT, count)


def test_several_records_of_one_person_pay_the_reference_figures() -> None:
    assert epsilon_of_records(REFERENCE, 2) == pytest.approx(6.7146, rel=0.0005)  # on a grid of 1e-4
    assert epsilon_of_records(REFERENCE, 5) == pytest.approx(21.149, rel=0.0005)


def test_shortcuts_for_two_records_give_other_figures() -> None:
    """What the function must not do; the first two would understate."""
    wrong = {
        "twice epsilon": 2 * epsilon(REFERENCE),
        "one record that is drawn twice as often": epsilon(replace(REFERENCE, sampling_probability=0.2)),
        "both records always drawn together": epsilon(replace(REFERENCE, noise_multiplier=2.178 / 2)),
    }
    assert [round(value, 2) for value in wrong.values()] == [6.0, 6.57, 8.54]
    for value in wrong.values():
        assert value != pytest.approx(epsilon_of_records(REFERENCE, 2), rel=0.02)


@pytest.mark.parametrize("plan", [REFERENCE, DEFAULT, make_plan(sampling_probability=0.02, noise_multiplier=0.8)])
def test_one_record_costs_the_stated_epsilon(plan: PrivacyPlan) -> None:
    assert epsilon(plan) <= epsilon_of_records(plan, 1) <= 1.002 * epsilon(plan)


@pytest.mark.parametrize("num_records", [1, 2, 5, 9])
@pytest.mark.parametrize(("q", "noise_multiplier"), [(0.1, 1.0), (0.3, 2.5), (0.01, 0.7)])
def test_one_step_brackets_the_integral(q: float, noise_multiplier: float, num_records: int) -> None:
    plan = make_plan(sampling_probability=q, noise_multiplier=noise_multiplier, num_steps=1)
    value = epsilon_of_records(plan, num_records)
    assert _is_tight(plan, num_records, value)
    assert not _is_tight(plan, num_records, 0.97 * value)
    assert not _is_tight(plan, num_records, 1.03 * value)


@pytest.mark.parametrize("num_records", [2, 5])
def test_without_sampling_records_cost_one_gaussian_mechanism(num_records: int) -> None:
    """Nine steps at noise multiplier z on k records are one step at z / (3 k) on one."""
    plan = make_plan(sampling_probability=1.0, noise_multiplier=12.0, num_steps=9)
    single = replace(plan, noise_multiplier=4.0 / num_records, num_steps=1)
    assert _is_tight(single, 1, epsilon_of_records(plan, num_records))


@pytest.mark.parametrize("num_records", [1, 2, 5])
def test_the_records_weigh_together_in_a_validation_release(num_records: int) -> None:
    plan = make_plan(noise_multiplier=1e4, num_steps=1, validation_releases=4, validation_noise_multiplier=10.0)
    single = make_plan(sampling_probability=1.0, noise_multiplier=5.0 / num_records, num_steps=1)
    assert _is_tight(single, 1, epsilon_of_records(plan, num_records))
    assert epsilon_of_records(replace(plan, validation_releases=0), num_records) < 0.01


def test_more_of_a_person_never_costs_less() -> None:
    """Under this plan every further record even costs more than the one before; an institution costs less."""
    records = [epsilon_of_records(DEFAULT, count) for count in range(1, 8)]
    steps = np.diff(records)
    assert (steps > 0).all()
    assert (np.diff(steps) > 0).all()
    institutions = [epsilon_of_institutions(DEFAULT, count) for count in range(1, 8)]
    assert institutions == sorted(set(institutions))
    assert all(few < many for few, many in zip(institutions[1:], records[1:], strict=True))


def test_the_statement_of_the_default_plan() -> None:
    found = statement(DEFAULT)
    assert found["epsilon"] == epsilon(DEFAULT) == 2.9999
    assert (found["false_positive_rate"], found["true_positive_rate"]) == (0.01, 0.045)
    assert found["institutions"] == pytest.approx({2: 4.1176, 4: 5.8122}, abs=5e-4)
    assert found["records"] == pytest.approx({2: 6.6601, 5: 20.2965}, rel=5e-4)
    assert found["highest"] == 50


def test_every_number_is_rounded_up() -> None:
    found = statement(DEFAULT)
    bound = attack_true_positive_rate(DEFAULT, 0.01)
    assert bound <= found["true_positive_rate"] < bound + 0.001
    for value in (*found["institutions"].values(), *found["records"].values()):
        assert value == round(value, 4)
    assert found["institutions"][2] >= 4.11751  # on a grid of 1e-4, an upper bound itself by less than 1e-5
    assert found["records"][2] >= 6.65993


def test_records_are_not_stated_for_the_group_unit() -> None:
    found = statement(replace(DEFAULT, unit="group"))
    assert found == {**statement(DEFAULT), "records": {}}


def test_what_cannot_be_bounded_is_infinite_or_beyond_what_is_shown() -> None:
    unresolved = statement(replace(DEFAULT, target_delta=1e-30))
    assert {*unresolved["institutions"].values(), *unresolved["records"].values()} == {math.inf}
    weak = replace(DEFAULT, noise_multiplier=0.1)
    assert epsilon_of_records(weak, 5) > statement(DEFAULT)["highest"]


SHARED = replace(REFERENCE, sampling_probability=0.2, num_steps=20, noise_multiplier=1.6254).shared(18, 3, 800)


def test_shared_noise_is_stated_for_those_who_collude_and_if_it_is_broken() -> None:
    """N = 20, m = 18, c = 3 at epsilon 3, by dp-accounting called by hand (docs/decisions.md, "shared noise")."""
    found = epsilon_if_colluding(SHARED)
    assert found == pytest.approx({3: 3.0, 4: 3.16, 5: 3.34, 17: 34.9}, abs=0.05)
    assert found[3] == pytest.approx(_by_hand(SHARED.noise_multiplier), abs=1e-3)
    assert found[17] == pytest.approx(_by_hand(SHARED.if_broken.noise_multiplier), rel=1e-3)
    assert epsilon_if_colluding(REFERENCE) == {}


def _by_hand(noise_multiplier: float) -> float:
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-4)
    step = dp_event.PoissonSampledDpEvent(0.2, dp_event.GaussianDpEvent(noise_multiplier))
    accountant.compose(dp_event.SelfComposedDpEvent(step, 20))
    return float(accountant.get_epsilon(1e-5))


def test_a_person_in_several_institutions_of_a_sum_has_the_joint_epsilon() -> None:
    assert epsilon_of_institutions(SHARED, 2) == pytest.approx(6.71, abs=0.02)
    assert epsilon_of_institutions(SHARED, 2) > epsilon_of_institutions(replace(SHARED, sharing=None), 2)


def test_an_epsilon_that_protects_nobody_is_infinite_and_costs_nothing() -> None:
    plan = replace(SHARED, num_steps=2000)
    assert epsilon_if_colluding(plan)[17] == math.inf
