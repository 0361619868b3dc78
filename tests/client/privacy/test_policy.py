"""A policy: every bound alone refuses, absent or exceeded, and nothing in a request moves one."""

import math
from typing import Any

import pytest
from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.pld import PLDAccountant
from support.policies import BASE, EPSILON, EXACT, TIGHTER, UNITS, make_dataset, make_policy, make_run, plan_of, reasons

from confide.client.config import PolicySection, SiteConfig
from confide.client.privacy import policy as policy_module
from confide.client.privacy.policy import RunRequest, cap_of, refusals
from confide.common.config.run import RunConfig
from confide.common.config.toml import check
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import PrivacyPlan


@pytest.fixture
def _no_accounting(monkeypatch: pytest.MonkeyPatch) -> None:
    def compose(plan: PrivacyPlan) -> float:
        raise AssertionError("the cost was computed though another bound refuses already")

    monkeypatch.setattr(policy_module, "epsilon", compose)


# Bounds


def test_a_value_that_equals_its_bound_is_allowed() -> None:
    assert reasons(make_run(), make_policy()) == []


@pytest.mark.parametrize("bound", sorted(set(EXACT) - {"max_epsilon_per_study"}))
def test_an_absent_bound_refuses(bound: str) -> None:
    absent = () if bound in ("studies", "base_models") else None
    [reason] = reasons(make_run(), make_policy(**{bound: absent}))
    assert f"policy.{bound}" in reason


@pytest.mark.parametrize("bound", EXACT)
def test_a_value_beyond_its_bound_alone_refuses(bound: str) -> None:
    [reason] = reasons(make_run(), make_policy(**{bound: TIGHTER[bound]}))
    assert f"policy.{bound}" in reason


def test_without_a_bound_for_each_study_the_bound_for_ever_holds_alone() -> None:
    assert reasons(make_run(), make_policy(max_epsilon_per_study=None)) == []


def test_no_policy_no_training() -> None:
    config = check(
        SiteConfig,
        {"institution": {"name": "x"}, "dataset": {"id": "p", "path": "p.jsonl", "declared_units": UNITS}},
        "site.toml",
    )
    given_reasons = reasons(make_run(), config.policy)
    for bound in set(EXACT) - {"max_epsilon_per_study"}:
        assert any(f"policy.{bound}" in reason for reason in given_reasons), bound
    assert config.policy.require_approval
    assert config.policy.share_metrics == "none"
    assert not config.policy.allow_no_privacy


def test_all_reasons_are_listed() -> None:
    """One at a time would be a search through the limits for whoever writes the run."""
    static = set(TIGHTER) - {"max_epsilon", "max_epsilon_per_study"}
    given_reasons = reasons(make_run(), make_policy(**{bound: TIGHTER[bound] for bound in static}), unit="record")
    assert len(given_reasons) == len(static)
    for bound in static:
        assert any(f"policy.{bound}" in reason for reason in given_reasons), bound
    both = reasons(make_run(), make_policy(**{b: TIGHTER[b] for b in ("max_epsilon", "max_epsilon_per_study")}))
    assert [f"policy.{bound} =" in reason for bound, reason in zip(TIGHTER, both, strict=False)] == [True, True]


def test_a_reason_names_the_value_and_the_limit() -> None:
    [reason] = reasons(make_run(), make_policy(max_steps=19))
    assert "20" in reason
    assert "19" in reason
    [reason] = reasons(make_run(), make_policy(max_epsilon=1.0, max_epsilon_per_study=None))
    assert f"{EPSILON:g}" in reason


@pytest.mark.usefixtures("_no_accounting")
@pytest.mark.parametrize(
    "bound", sorted(set(TIGHTER) - {"max_epsilon", "max_epsilon_per_study", "studies", "base_models"})
)
def test_what_another_bound_refuses_is_not_accounted(bound: str) -> None:
    assert reasons(make_run(), make_policy(**{bound: TIGHTER[bound]}))


@pytest.mark.parametrize(("factor", "counted"), [(1.0, True), (2.0, True), (2.000001, False)])
def test_no_accountant_runs_for_a_cost_above_twice_the_bound(
    monkeypatch: pytest.MonkeyPatch, factor: float, counted: bool
) -> None:
    """Twice, and no less: the cheap bound may be that far from the cost."""
    calls = list[object]()
    monkeypatch.setattr(policy_module, "least_epsilon", lambda plan: 3.0 * factor)
    monkeypatch.setattr(policy_module, "epsilon", lambda plan: calls.append(plan) or 3.5)
    policy = make_policy(**{**EXACT, "max_epsilon": 3.0, "max_epsilon_per_study": 100.0})
    [reason] = policy_module._cost(plan_of(make_run()), policy)
    assert (bool(calls), "at least" in reason) == (counted, not counted)


@pytest.mark.usefixtures("_no_accounting")
def test_an_absurd_plan_is_refused_without_accounting() -> None:
    """A million steps with noise 0.1 would take minutes and gigabytes to account."""
    run = make_run(
        federation={"num_rounds": 100_000},
        local={"steps": 10, "sampling_probability": 1.0},
        privacy={"noise_multiplier": 0.1, "target_delta": 1e-15},
    )
    for bounds in ({}, {"max_steps": 10**6}, {"min_noise_multiplier": 0.1}, {"max_rounds": 10**6}):
        assert reasons(run, make_policy(**bounds))


# What a plan costs


def by_hand(run: RunConfig, delta: float) -> float:
    plan = plan_of(run)
    step = dp_event.PoissonSampledDpEvent(plan.sampling_probability, dp_event.GaussianDpEvent(plan.noise_multiplier))
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(step, run.num_steps)
    if plan.validation_releases:
        accountant.compose(dp_event.GaussianDpEvent(plan.validation_noise_multiplier), plan.validation_releases)
    return float(accountant.get_epsilon(delta))


def test_the_cost_is_that_of_the_whole_plan_at_the_policy_s_delta() -> None:
    """A server that names a larger delta than the plan needs gains nothing by it, nor by a smaller one."""
    run = make_run(privacy={"target_delta": 1e-7}, evaluation={"validation_every": 5})
    cost = by_hand(run, 1e-5)
    within = make_policy(max_epsilon=cost + 2e-4, max_epsilon_per_study=None)
    assert reasons(run, within) == []
    assert reasons(run, make_policy(max_epsilon=cost - 2e-4, max_epsilon_per_study=None))
    assert by_hand(make_run(), 1e-5) < cost - 2e-4, "validation counts cost something"


@pytest.mark.parametrize("noise", [2.0, math.nextafter(2.0, 0)])
def test_validation_noise_has_the_same_lower_bound(noise: float) -> None:
    generous = make_policy(max_epsilon=100.0, max_epsilon_per_study=None)
    evaluation = {"validation_every": 10, "validation_noise_multiplier": noise}
    assert bool(reasons(make_run(evaluation=evaluation), generous)) == (noise < 2.0)
    assert not reasons(make_run(evaluation={"validation_noise_multiplier": noise}), generous), "never released"


@pytest.mark.parametrize(("units", "refused"), [(99_999, False), (100_000, True), (10**6, True)])
def test_delta_is_below_one_over_the_declared_units(units: int, refused: bool) -> None:
    """At delta 1 / n a mechanism may give one unit away whole."""
    given_reasons = reasons(make_run(), make_policy(), declared_units=units)
    named = [reason.partition(" = ")[0] for reason in given_reasons if "declared_units" in reason]
    assert named == ["privacy.target_delta", "policy.max_delta"] * refused
    assert len(given_reasons) == len(named)


def test_the_delta_of_the_budget_is_below_one_over_the_declared_units() -> None:
    lax = make_policy(max_delta=1e-2, max_epsilon=EPSILON, max_epsilon_per_study=None)
    assert any("delta" in reason for reason in reasons(make_run(), lax, declared_units=UNITS))


# Unit, base, privacy


def test_another_unit_than_the_dataset_s_is_refused_both_ways() -> None:
    """Group privacy does not imply record privacy, nor the other way round."""
    for run_unit, dataset in (
        ("group", {"unit": "record"}),
        ("record", {"unit": "group", "columns": {"group": "patient"}}),
    ):
        [reason] = reasons(make_run(privacy={"unit": run_unit}), make_policy(), **dataset)
        assert "the dataset's unit" in reason
    grouped = make_run(privacy={"unit": "group"})
    assert not reasons(grouped, make_policy(), unit="group", columns={"group": "patient"})


def test_any_base_is_any_base_with_a_hash() -> None:
    for base in ("0" * 64, BASE):
        assert not reasons(make_run(model={"sha256": base}), make_policy(base_models=("any",)))
    unnamed = make_run()
    unnamed = unnamed.model_copy(update={"model": unnamed.model.model_copy(update={"sha256": None})})
    for bases in (("any",), (BASE,)):
        [reason] = reasons(unnamed, make_policy(base_models=bases))
        assert "model.sha256 is missing" in reason


@pytest.mark.parametrize("unit", ["record", "none"])
def test_a_start_needs_its_hash_and_a_hash_its_start(unit: str) -> None:
    policy, named = make_policy(allow_no_privacy=True), {"start_from": "adapter", "start_sha256": "5" * 64}
    assert reasons(make_run(privacy={"unit": unit}, adapter=named), policy) == []
    for missing, told in (("start_sha256", "start_sha256 is missing"), ("start_from", "start_from names no adapter")):
        half = {name: value for name, value in named.items() if name != missing}
        [reason] = reasons(make_run(privacy={"unit": unit}, adapter=half), policy)
        assert f"adapter.{told}" in reason
    [reason] = reasons(make_run(privacy={"unit": unit}, adapter={"start_from": ""}), policy)
    assert "start_sha256 is missing" in reason


def test_no_privacy_needs_leave_and_a_study_and_a_base_of_the_policy() -> None:
    run = make_run(privacy={"unit": "none"})
    [reason] = reasons(run, make_policy())
    assert "policy.allow_no_privacy" in reason
    assert reasons(run, make_policy(allow_no_privacy=True)) == []
    for bound in ("studies", "base_models"):
        assert len(reasons(run, make_policy(allow_no_privacy=True, **{bound: TIGHTER[bound]}))) == 1


def test_leave_for_no_privacy_moves_no_bound_of_a_run_with_privacy() -> None:
    for bound, value in TIGHTER.items():
        assert reasons(make_run(), make_policy(allow_no_privacy=True, **{bound: value})), bound


@pytest.mark.parametrize("absent", ["max_epsilon", "max_delta"])
def test_a_cap_with_an_absent_bound_is_a_cap_of_nothing(absent: str) -> None:
    assert cap_of(make_policy(**{absent: None})) == Cap(0.0, 1e-5)
    assert cap_of(make_policy()) == Cap(EPSILON, 1e-5)


# One bound, whatever the others


ONE_BEYOND: dict[str, dict[str, Any]] = {
    "study": {"study": {"name": "another"}},
    "base": {"model": {"sha256": "0" * 64}},
    "unit": {"privacy": {"unit": "group"}},
    "no privacy": {"privacy": {"unit": "none"}},
    "delta": {"privacy": {"target_delta": math.nextafter(1e-5, 1)}},
    "noise": {"privacy": {"noise_multiplier": math.nextafter(2.0, 0)}},
    "steps": {"local": {"steps": 3}},
    "rounds": {"federation": {"num_rounds": 11}, "local": {"steps": 1}},
    "sampling": {"local": {"sampling_probability": math.nextafter(0.1, 1)}},
    "clip": {"privacy": {"clip_norm": math.nextafter(1.0, 0)}},
    "head": {"privacy": {"head_weight": math.nextafter(0.5, 1)}},
}


@pytest.mark.parametrize("sections", ONE_BEYOND.values(), ids=ONE_BEYOND)
def test_one_field_of_a_run_beyond_its_bound_refuses_whatever_the_others(sections: dict[str, Any]) -> None:
    generous = make_policy(max_epsilon=100.0, max_epsilon_per_study=None)
    assert len(reasons(make_run(**sections), generous)) == 1


@pytest.mark.parametrize(("noise", "steps", "q"), [(0.1, 1000, 1.0), (0.1, 1000, 0.001), (0.3, 1000, 0.25)])
def test_an_absurd_plan_is_refused_without_an_accountant(
    monkeypatch: pytest.MonkeyPatch, noise: float, steps: int, q: float
) -> None:
    """One such ask took 88 s and 3.8 GB: an institution that allows little noise and many steps had to pay that."""
    monkeypatch.setattr(policy_module, "epsilon", lambda plan: pytest.fail("the accountant was asked"))
    run = make_run(
        federation={"num_rounds": steps},
        local={"steps": 1, "sampling_probability": q},
        privacy={"noise_multiplier": noise},
    )
    bounds = {
        "max_epsilon": 3.0,
        "min_noise_multiplier": noise,
        "max_steps": steps,
        "max_rounds": steps,
        "max_sampling_probability": q,
    }
    policy = PolicySection(**{**EXACT, **bounds, "max_epsilon_per_study": 2.0})
    said = refusals(RunRequest(run, plan_of(run)), make_dataset(), policy)
    assert [reason.split(" = ")[0] for reason in said] == ["epsilon of the whole plan, at least"] * 2
    assert [reason.split("policy.")[1] for reason in said] == ["max_epsilon = 3", "max_epsilon_per_study = 2"]


def test_a_plan_that_something_else_refuses_is_not_accounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_module, "epsilon", lambda plan: pytest.fail("the accountant was asked"))
    run = make_run(study={"name": "another"})
    assert refusals(RunRequest(run, plan_of(run)), make_dataset(), PolicySection(**EXACT))


def test_ticks_shorter_than_the_institution_s_own_are_refused() -> None:
    """The server writes the run, and with it how finely a clock tells how long training took."""
    ten = make_policy(min_release_seconds=10.0)
    [reason] = reasons(make_run(federation={"release_seconds": 9.5}), ten)
    assert reason == "federation.release_seconds = 9.5 is refused: policy.min_release_seconds = 10"
    assert not reasons(make_run(federation={"release_seconds": 10.0}), ten)
    assert not reasons(make_run(federation={"release_seconds": 60.0}), ten)


def test_a_large_clip_norm_and_a_small_head_weight_need_no_bound() -> None:
    """Noise grows with the clip, and division by the head's weight comes after the noise: neither tells more."""
    assert not reasons(make_run(privacy={"clip_norm": 1e6, "head_weight": 1e-6}), make_policy())
