"""The one decision about a run: policy, then a person, then the budget; and what a round may do with it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.ledgers import LINEAGE, key, make_ledger

from confide.client.config import DatasetSection, InstitutionSection, PolicySection, SiteConfig
from confide.client.privacy.account import Account
from confide.client.privacy.decision import Decision, decide
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.policy import RunRequest
from confide.common.config.run import RunConfig, make_plan
from confide.common.config.toml import check
from confide.common.errors import BudgetError, PolicyError
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import PrivacyPlan

CAP = Cap(8.0, 1e-5)
DATASET = DatasetSection(id="people", path=Path("x.jsonl"), declared_units=2000)
POLICY = PolicySection(
    **{"max_epsilon": CAP.max_epsilon, "max_delta": CAP.max_delta, "min_noise_multiplier": 0.1, "max_steps": 1000},
    **{"max_rounds": 1000, "max_sampling_probability": 1.0, "min_clip_norm": 1e-6, "max_head_weight": 1e6},
    **{"min_release_seconds": 1, "studies": ("small", "large"), "base_models": ("any",), "require_approval": False},
)


def make_run(name: str = "small", noise: float = 4.0) -> RunConfig:
    content: dict[str, Any] = {"study": {"name": name}, "model": {"sha256": "b" * 64}, "task": {"labels": ["a", "b"]}}
    content |= {"federation": {"num_rounds": 2}, "privacy": {"noise_multiplier": noise}}
    return check(RunConfig, content, "test")


def plan_of(run: RunConfig) -> PrivacyPlan:
    plan = make_plan(run, DATASET.declared_units)
    assert isinstance(plan, PrivacyPlan)
    return plan


def decided(run: RunConfig, account: Account, lineage: str | None = None, **policy: Any) -> Decision:
    config = SiteConfig(
        institution=InstitutionSection(name="st-mary"), dataset=DATASET, policy=POLICY.model_copy(update=policy)
    )
    return decide(RunRequest(run, plan_of(run)), config, "0" * 64, account, lineage)


def opened(run: RunConfig, cap: Cap = CAP) -> Ledger:
    ledger = make_ledger()
    ledger.open_study(run.study.name, plan_of(run), cap)
    return ledger


def test_what_nothing_speaks_against_is_allowed_under_the_cap_in_force() -> None:
    run = make_run()
    for account in (Account(), opened(run).account()):
        decision = decided(run, account)
        assert decision == Decision(CAP, (), None, None)
        assert decision.require() == CAP


def test_every_reason_of_the_policy_is_given() -> None:
    decision = decided(make_run(), Account(), max_rounds=1, min_clip_norm=None)
    assert ["max_rounds" in reason or "min_clip_norm" in reason for reason in decision.refusals] == [True, True]
    with pytest.raises(PolicyError, match=r"max_rounds.*; .*min_clip_norm"):
        decision.require()


def test_a_run_that_waits_for_a_person_is_refused_until_then_and_named() -> None:
    run = make_run()
    decision = decided(run, Account(), require_approval=True)
    assert not decision.refusals
    with pytest.raises(PolicyError, match="confide client approve small"):
        decision.require()
    ledger = opened(run)
    ledger.approve("small", run.sha256(), plan_of(run), CAP)
    assert decided(run, ledger.account(), require_approval=True).require() == CAP


def test_a_plan_that_does_not_fit_beside_what_is_allotted_is_over_the_budget() -> None:
    account, large = opened(make_run()).account(), make_run("large", noise=0.6)
    assert decided(large, Account()).require() == CAP, "alone it fits"
    decision = decided(large, account)
    assert (decision.refusals, decision.waits) == ((), None)
    with pytest.raises(BudgetError, match=r"study 'large'.*policy\.max_epsilon = 8"):
        decision.require()


def test_a_person_is_asked_before_the_budget_is_told() -> None:
    decision = decided(make_run("large", noise=0.6), opened(make_run()).account(), require_approval=True)
    assert decision.budget
    with pytest.raises(PolicyError, match="waits for approval"):
        decision.require()


def test_the_rules_of_the_ledger_are_reasons_of_the_policy() -> None:
    run = make_run()
    changed = decided(make_run(noise=4.5), opened(run).account())
    assert ["another plan" in reason for reason in changed.refusals] == [True]
    assert changed.budget is None


def test_a_study_whose_steps_are_spent_takes_only_the_run_that_spent_them() -> None:
    run = make_run()
    ledger = opened(run)
    for number in (1, 2):
        facts = {"input_sha256": "1" * 64, "run_sha256": run.sha256(), "coins": "os"}
        ledger.reserve(replace(key(number), study="small"), (1, 0), CAP, facts)
    account = ledger.account()
    assert decided(run, account, LINEAGE).require() == CAP, "its sealed answers are sent again"
    for lineage in (None, "cd" * 16):
        with pytest.raises(BudgetError, match="are spent"):
            decided(run, account, lineage).require()
