"""Any run against any policy: none beyond a bound is allowed, and no other is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.policies import BASE, UNITS, make_run, reasons

from confide.client.config import PolicySection
from confide.client.privacy import policy as policy_module
from confide.common.config.run import RunConfig, make_plan
from confide.common.privacy.plan import PrivacyPlan


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
