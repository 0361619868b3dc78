"""What an institution allows: every bound alone refuses, absent or exceeded, and nothing in a request moves one."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.client.config import DatasetSection, PolicySection, SiteConfig
from confide.client.privacy import policy as policy_module
from confide.client.privacy.policy import RunRequest, cap_of, refusals, waits_for_approval
from confide.common.config.run import RunConfig, make_plan
from confide.common.config.toml import check
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import PrivacyPlan

BASE = "b" * 64
UNITS = 2000


def make_run(**sections: dict[str, Any]) -> RunConfig:
    """10 rounds of 2 steps with q = 0.1, noise 2 and delta 1e-5, locked; changed where a test says so."""
    content: dict[str, dict[str, Any]] = {
        "study": {"name": "reviews"},
        "model": {"sha256": BASE},
        "task": {"labels": ["negative", "positive"]},
        "federation": {"num_rounds": 10},
        "local": {"steps": 2},
        "privacy": {"noise_multiplier": 2.0},
    }
    for name, values in sections.items():
        content[name] = {**content.get(name, {}), **values}
    return check(RunConfig, content, "test")


def make_dataset(**changes: Any) -> DatasetSection:
    return DatasetSection(**{"id": "people", "path": Path("x.jsonl"), "declared_units": UNITS, **changes})


def plan_of(run: RunConfig) -> PrivacyPlan:
    plan = make_plan(run, UNITS)
    assert isinstance(plan, PrivacyPlan)
    return plan


EPSILON = epsilon(plan_of(make_run()))
# Every bound with the very value that the run has.
EXACT: dict[str, Any] = {
    "max_epsilon": EPSILON,
    "max_epsilon_per_study": EPSILON,
    "max_delta": 1e-5,
    "min_noise_multiplier": 2.0,
    "max_steps": 20,
    "max_rounds": 10,
    "max_sampling_probability": 0.1,
    "min_clip_norm": 1.0,
    "max_head_weight": 0.5,
    "min_release_seconds": 1.0,
    "studies": ("reviews",),
    "base_models": (BASE,),
}
TIGHTER: dict[str, Any] = {
    "max_epsilon": EPSILON - 1e-4,
    "max_epsilon_per_study": EPSILON - 1e-4,
    "max_delta": math.nextafter(1e-5, 0),
    "min_noise_multiplier": math.nextafter(2.0, 3),
    "max_steps": 19,
    "max_rounds": 9,
    "max_sampling_probability": math.nextafter(0.1, 0),
    "min_clip_norm": math.nextafter(1.0, 2),
    "max_head_weight": math.nextafter(0.5, 0),
    "min_release_seconds": math.nextafter(1.0, 2),
    "studies": ("review", "reviews-2"),
    "base_models": ("a" * 64,),
}


def make_policy(**changes: Any) -> PolicySection:
    return PolicySection(**{**EXACT, **changes})


def reasons(run: RunConfig, policy: PolicySection, **dataset: Any) -> list[str]:
    declared = make_dataset(**dataset)
    return refusals(RunRequest(run, make_plan(run, declared.declared_units)), declared, policy)


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


def test_the_delta_at_which_the_budget_is_counted_is_below_one_over_the_declared_units() -> None:
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
    assert cap_of(make_policy(**{absent: None})).max_epsilon == 0
    assert cap_of(make_policy()) == Cap(EPSILON, 1e-5)


# Approval

# Another value for every key of a locked run: the table must name each of them.
OTHER: dict[str, dict[str, Any]] = {
    "study": {"name": "reviews-2", "institutions": ["st-mary"], "seed": 8},
    "model": {"base": "another", "sha256": "c" * 64},
    "adapter": {"method": None, "rank": 9, "targets": ["key"], "train": "AB", "layers": "top:1"},
    "task": {"kind": None, "labels": ["positive", "negative"], "max_length": 64, "pooling": "native"},
    "federation": {
        "num_rounds": 20,
        "min_clients": 2,
        "deadline_seconds": 60.0,
        "release_seconds": 2.0,
        "aggregation": "median",
        "weights": "declared",
        "server_optimizer": "none",
        "learning_rate": 0.1,
        "average_decay": 0.1,
        "transfer": "int8",
        "participation": 0.5,
    },
    "local": {"steps": 1, "sampling_probability": 0.05, "nominal_units": 100, "learning_rate": 0.5},
    "privacy": {
        "unit": "group",
        "target_epsilon": 2.0,
        "target_delta": 1e-6,
        "clip_norm": 2.0,
        "clipping": "abadi",
        "head_weight": 1.0,
        "noise_multiplier": 2.1,
    },
    "evaluation": {"data": "x.jsonl", "every": 1, "validation_every": 5, "validation_noise_multiplier": 20.0},
}
CHANGES = [(section, key) for section, values in OTHER.items() for key, value in values.items() if value is not None]


def test_the_table_names_every_key_of_a_locked_run() -> None:
    content = json.loads(make_run().canonical_json())
    assert {section: set(values) for section, values in content.items()} == {s: set(v) for s, v in OTHER.items()}


@pytest.mark.parametrize(("section", "key"), CHANGES, ids=[f"{section}.{key}" for section, key in CHANGES])
def test_approval_binds_every_field_of_the_locked_run(section: str, key: str) -> None:
    run, policy = make_run(), make_policy()
    approved = {(run.study.name, run.sha256())}
    assert waits_for_approval(run, policy, approved) is None
    changed = make_run(**{section: {key: OTHER[section][key]}})
    waits = waits_for_approval(changed, policy, approved)
    assert waits is not None
    assert f"confide client approve {changed.study.name}" in waits
    assert changed.sha256()[:12] in waits


def test_approval_is_of_a_study_and_a_run_together() -> None:
    run, policy = make_run(), make_policy()
    for other in (set(), {("another", run.sha256())}, {(run.study.name, "0" * 64)}):
        assert waits_for_approval(run, policy, other)
    assert waits_for_approval(run, make_policy(require_approval=False), set()) is None


def test_settings_of_a_simulation_are_no_part_of_what_is_approved() -> None:
    run = make_run()
    simulated = make_run(simulation={"data": "x.jsonl"}, speed={"device": "cpu"})
    assert waits_for_approval(simulated, make_policy(), {(run.study.name, run.sha256())}) is None


# Any run against any policy


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


RUNS = st.builds(
    lambda study, base, federation, local, privacy, evaluation: make_run(
        study={"name": study}, model={"sha256": base}, federation=federation, local=local, privacy=privacy,
        evaluation=evaluation,
    ),
    study=st.sampled_from(["reviews", "notes"]),
    base=st.sampled_from([BASE, "c" * 64]),
    federation=st.fixed_dictionaries({"num_rounds": st.integers(1, 1000), "release_seconds": st.floats(1, 1000)}),
    local=st.fixed_dictionaries({"steps": st.integers(1, 1000), "sampling_probability": st.floats(1e-4, 1)}),
    privacy=st.fixed_dictionaries(
        {
            "unit": st.sampled_from(["record", "group", "none"]),
            "target_delta": st.floats(1e-15, 1e-2),
            "noise_multiplier": st.floats(0.1, 1e4),
            "clip_norm": st.floats(1e-6, 1e6),
            "head_weight": st.floats(1e-6, 1e6),
        }
    ),
    evaluation=st.fixed_dictionaries(
        {"validation_every": _maybe(st.integers(1, 2000)), "validation_noise_multiplier": st.floats(0.1, 1e4)}
    ),
)  # fmt: skip
LIMITS = ("equal", "equal", "looser", "looser", "looser", "tighter", "absent")


@st.composite
def run_and_policy(draw: st.DrawFn) -> tuple[RunConfig, PolicySection]:
    """A run, and a policy each of whose bounds is at the run's value, beside it, or absent."""
    run = draw(RUNS)
    plan = make_plan(run, UNITS)
    cost = _cost(plan) if isinstance(plan, PrivacyPlan) else 1.0
    exact = {
        "max_epsilon": min(max(cost, 0.01), 100.0),
        "max_epsilon_per_study": min(max(cost, 0.01), 100.0),
        "max_delta": run.privacy.target_delta,
        "min_noise_multiplier": run.privacy.noise_multiplier,
        "max_steps": run.num_steps,
        "max_rounds": run.federation.num_rounds,
        "max_sampling_probability": run.local.sampling_probability,
        "min_clip_norm": run.privacy.clip_norm,
        "max_head_weight": run.privacy.head_weight,
        "min_release_seconds": run.federation.release_seconds,
    }
    limits: dict[str, Any] = {}
    for name, value in exact.items():
        choice = draw(st.sampled_from(LIMITS))
        factor = {"equal": 1.0, "looser": 1.5, "tighter": 0.5, "absent": 0.0}[choice]
        factor = 1 / factor if name.startswith("min_") and factor else factor
        limits[name] = type(value)(value * factor) or None
    limits["studies"] = draw(st.sampled_from([("reviews", "notes"), ("reviews",), ()]))
    limits["base_models"] = draw(st.sampled_from([("any",), (BASE,), ()]))
    limits["allow_no_privacy"] = draw(st.booleans())
    return run, PolicySection.model_construct(**limits)


def _cost(plan: PrivacyPlan) -> float:
    """Stands for the accountant: instant, and not monotone in any bound."""
    return plan.num_steps / plan.noise_multiplier / 1000 + plan.target_delta


def _beyond(run: RunConfig, policy: PolicySection, units: int) -> dict[str, bool]:
    """Which bounds a run passes, by a second reading of the design."""

    def above(value: float, bound: float | None) -> bool:
        return bound is None or value > bound

    def below(value: float, bound: float | None) -> bool:
        return bound is None or value < bound

    passed = {
        "study": run.study.name not in policy.studies,
        "base": not {"any", run.model.sha256} & set(policy.base_models),
    }
    plan = make_plan(run, units)
    if not isinstance(plan, PrivacyPlan):
        return {**passed, "no privacy": not policy.allow_no_privacy}
    cost = _cost(plan) - plan.target_delta + (policy.max_delta or 0)
    noises = [plan.noise_multiplier, *[plan.validation_noise_multiplier] * bool(plan.validation_releases)]
    return {
        **passed,
        "epsilon": above(cost, policy.max_epsilon),
        "epsilon per study": policy.max_epsilon_per_study is not None and cost > policy.max_epsilon_per_study,
        "delta": above(plan.target_delta, policy.max_delta) or plan.target_delta * units >= 1,
        "delta of the cap": (policy.max_delta or 0) * units >= 1,
        "noise": policy.min_noise_multiplier is None or min(noises) < policy.min_noise_multiplier,
        "steps": above(run.federation.num_rounds * run.local.steps, policy.max_steps),
        "rounds": above(run.federation.num_rounds, policy.max_rounds),
        "sampling": above(run.local.sampling_probability, policy.max_sampling_probability),
        "clip": below(run.privacy.clip_norm, policy.min_clip_norm),
        "head": above(run.privacy.head_weight, policy.max_head_weight),
        "ticks": below(run.federation.release_seconds, policy.min_release_seconds),
        "unit": run.privacy.unit != "record",
    }


@settings(max_examples=500)
@given(both=run_and_policy(), units=st.integers(1, 5000))
def test_no_run_beyond_any_bound_is_allowed_and_no_other_is_refused(
    both: tuple[RunConfig, PolicySection], units: int
) -> None:
    run, policy = both
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_module, "epsilon", _cost)
        patch.setattr(policy_module, "least_epsilon", lambda plan: 0.0)
        refused = bool(reasons(run, policy, declared_units=units))
    assert refused == any(_beyond(run, policy, units).values())


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
