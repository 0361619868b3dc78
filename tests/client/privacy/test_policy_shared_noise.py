"""A policy's bounds on noise that institutions share: each alone refuses, and an absent one refuses too."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.installations import write_site
from support.planting import require_caught
from support.policies import EXACT, make_dataset, make_policy, make_run, plan_of

from confide.client.config import PolicySection, load_site_config
from confide.client.privacy import policy as policy_module
from confide.client.privacy.policy import RunRequest, cap_of, waits_for_approval
from confide.common.errors import InputError
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.filter import Cap

RUN = make_run()
PLAN = plan_of(RUN).shared(4, 1, 800)
FIRST, SECOND = epsilon(PLAN), epsilon(PLAN.if_broken)
FITS: dict[str, Any] = {"max_epsilon": FIRST, "max_epsilon_if_broken": SECOND, "tolerate_colluding": 1}


def reasons(**changes: Any) -> list[str]:
    return policy_module.refusals(RunRequest(RUN, PLAN), make_dataset(), make_policy(**{**FITS, **changes}))


def check_each_bound_of_shared_noise_refuses_alone() -> None:
    assert reasons() == []
    for changes, words in (
        ({"tolerate_colluding": None}, "privacy.max_colluding = 1 is refused: policy.tolerate_colluding is not set"),
        ({"tolerate_colluding": 2}, "privacy.max_colluding = 1 is refused: policy.tolerate_colluding = 2"),
        ({"max_epsilon_if_broken": SECOND - 1e-3}, f"broken = {SECOND:g} is refused: policy.max_epsilon_if_broken"),
        ({"max_epsilon_if_broken": None}, f"is refused: policy.max_epsilon = {FIRST:g}"),
    ):
        found = reasons(**changes)
        assert len(found) == 1, changes
        assert words in found[0]
    assert reasons(tolerate_colluding=0) == []


def check_the_bound_on_each_study_is_of_the_first_account() -> None:
    assert reasons(max_epsilon_per_study=FIRST) == []
    assert len(reasons(max_epsilon_per_study=FIRST - 1e-3)) == 1


def check_no_accountant_runs_for_an_absurd_second_number() -> None:
    """A share of next to no noise would take an accountant minutes."""
    asked = []
    faint = plan_of(make_run(privacy={"noise_multiplier": 2.0})).shared(200, 1, 800)
    real = policy_module.epsilon
    policy_module.epsilon = lambda plan: asked.append(plan) or real(plan)  # type: ignore[assignment,func-returns-value]
    try:
        bounds = make_policy(**{**FITS, "max_epsilon_if_broken": FIRST})
        found = policy_module.refusals(RunRequest(RUN, faint), make_dataset(), bounds)
    finally:
        policy_module.epsilon = real
    assert "if its shared noise is broken, at least" in found[0]
    assert asked == []


CHECKS = [
    check_each_bound_of_shared_noise_refuses_alone,
    check_the_bound_on_each_study_is_of_the_first_account,
    check_no_accountant_runs_for_an_absurd_second_number,
]
BUGS = {
    "second account skipped": ("if plan.sharing is not None:\n        name", "if False:\n        name", CHECKS[0]),
    "second account by the sum's noise": ("ours.if_broken, second", "ours, second", CHECKS[0]),
    "colluding not bounded": (
        'reasons += _below("privacy.max_colluding"',
        '_below("privacy.max_colluding"',
        CHECKS[0],
    ),
    "bound of each study on the second account": (
        "= {name: cap_of(policy).if_broken.max_epsilon}",
        "= {**asked[0][2], name: cap_of(policy).if_broken.max_epsilon}",
        CHECKS[1],
    ),
    "lower bound of the first account alone": (
        "for what, each, bounds in asked:\n",
        "for what, each, bounds in asked[:1]:\n",
        CHECKS[2],
    ),
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_policy_on_shared_noise_as_it_is(check: Any) -> None:
    check()


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_in_the_bounds_on_shared_noise_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_caught(monkeypatch, policy_module, BUGS[name])


def test_a_local_plan_needs_none_of_these_bounds() -> None:
    request = RunRequest(RUN, plan_of(RUN))
    assert policy_module.refusals(request, make_dataset(), make_policy()) == []
    assert policy_module.refusals(request, make_dataset(), make_policy(max_epsilon_if_broken=100.0)) == []


def test_the_cap_names_a_second_bound_only_if_it_is_set() -> None:
    assert cap_of(make_policy()) == Cap(EXACT["max_epsilon"], 1e-5)
    assert cap_of(make_policy(max_epsilon_if_broken=50.0)) == Cap(EXACT["max_epsilon"], 1e-5, 50.0)
    assert cap_of(make_policy(max_epsilon=None, max_epsilon_if_broken=50.0)) == Cap(0.0, 1e-5)


@pytest.mark.parametrize("second", [2.9, 0.0, 100.1, float("nan")])
def test_a_second_cap_is_no_lower_than_the_first_and_at_most_100(second: float, tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        PolicySection(max_epsilon=3.0, max_epsilon_if_broken=second)
    with pytest.raises(InputError, match="max_epsilon_if_broken"):
        load_site_config(write_site(tmp_path, policy={"max_epsilon": 3.0, "max_epsilon_if_broken": second}))
    assert PolicySection(max_epsilon=3.0, max_epsilon_if_broken=3.0).max_epsilon_if_broken == 3.0


def test_a_secure_sum_waits_for_a_person_even_if_no_other_run_does() -> None:
    summed = RUN.model_copy(update={"federation": RUN.federation.model_copy(update={"aggregation": "secure-sum"})})
    trusting = make_policy(require_approval=False)
    assert waits_for_approval(RUN, trusting, set()) is None
    assert waits_for_approval(summed, trusting, set())
    assert waits_for_approval(summed, trusting, {(summed.study.name, summed.sha256())}) is None
