"""The policy of an institution: a pure function of a request, the limits and earlier approvals."""

from dataclasses import dataclass, replace

from confide.client.config import DatasetSection, PolicySection
from confide.common.config.run import RunConfig
from confide.common.config.sections import SECURE_SUM
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.filter import Cap
from confide.common.privacy.least import least_epsilon
from confide.common.privacy.plan import NoPrivacy, Plan, PrivacyPlan

_NOTHING = Cap(0.0, 1e-5)  # of an institution that sets no bound, because it trains without privacy


@dataclass(frozen=True)
class RunRequest:
    """The request of a server: a locked run, and the plan that this institution would follow in it."""

    run: RunConfig
    plan: Plan


def cap_of(policy: PolicySection) -> Cap:
    """Return the cap on all spend, for ever. If a bound is absent, it allows nothing."""
    if policy.max_epsilon is None or policy.max_delta is None:
        return _NOTHING
    return Cap(policy.max_epsilon, policy.max_delta, policy.max_epsilon_if_broken)


def refusals(request: RunRequest, dataset: DatasetSection, policy: PolicySection) -> list[str]:
    """Return every reason to refuse a request. Without one it is allowed, and may still wait for approval.

    Guarantee: an absent bound refuses, and so does a value beyond a bound. Nothing in a request can change a limit.
    Only `max_epsilon_per_study` may be absent, for `max_epsilon` holds for each study too, and `max_epsilon_if_broken`,
    which is then equal to `max_epsilon`. For shared noise, ``tolerate_colluding`` is a bound like any other.
    The budget is not checked here: the ledger decides on it in one transaction with the charge (`rules.may_open`).
    """
    reasons = _study_and_base(request.run, policy)
    if isinstance(request.plan, NoPrivacy):
        if not policy.allow_no_privacy:
            reasons.append("privacy.unit = 'none' is refused: policy.allow_no_privacy is not set")
        return reasons
    reasons += _bounds(request.plan, request.run, policy) + _unit_and_delta(request.plan, dataset, policy)
    # Last, and only for a plan that nothing else refuses: an accountant takes minutes and gigabytes for an absurd one.
    return reasons or _cost(request.plan, policy)


def waits_for_approval(run: RunConfig, policy: PolicySection, approved: set[tuple[str, str]]) -> str | None:
    """Return what a person has to do before a run is accepted, or None. Approval binds the hash of the locked run.

    Args:
        run: locked.
        policy: `require_approval` is on unless the institution turned it off. A secure sum always needs a person, who
            compares the fingerprints of its members.
        approved: pairs of study and run hash, from the ledger.
    """
    name, sha256 = run.study.name, run.sha256()
    needed = policy.require_approval or run.federation.aggregation == SECURE_SUM
    if not needed or (name, sha256) in approved:
        return None
    return f"run {sha256[:12]} of study {name!r} waits for approval: `confide client approve {name}`"


def _study_and_base(run: RunConfig, policy: PolicySection) -> list[str]:
    reasons = []
    if run.study.name not in policy.studies:
        reasons.append(f"study.name = {run.study.name!r} is not in policy.studies = {list(policy.studies)}")
    if run.model.sha256 is None:
        reasons.append("model.sha256 is missing: a run must name its base model's hash")
    elif "any" not in policy.base_models and run.model.sha256 not in policy.base_models:
        reasons.append(f"model.sha256 = {run.model.sha256} is not in policy.base_models")
    named, start = run.adapter.start_from is not None, run.adapter.start_sha256 is not None
    if named and not start:  # else a person would approve an unnamed start
        reasons.append("adapter.start_sha256 is missing: a run must name the hash of the adapter that it goes on from")
    if start and not named:  # else a person would approve a start that is none
        reasons.append("adapter.start_sha256 is set, but adapter.start_from names no adapter")
    return reasons


def _bounds(plan: PrivacyPlan, run: RunConfig, policy: PolicySection) -> list[str]:
    """Check the plan against every numeric bound but those on epsilon."""
    noise = plan.noise_multiplier
    if plan.validation_releases:
        noise = min(noise, plan.validation_noise_multiplier)
    reasons = _above("privacy.target_delta", plan.target_delta, "max_delta", policy.max_delta)
    reasons += _above("the number of steps", plan.num_steps, "max_steps", policy.max_steps)
    reasons += _above("federation.num_rounds", run.federation.num_rounds, "max_rounds", policy.max_rounds)
    limit = policy.max_sampling_probability
    reasons += _above("local.sampling_probability", plan.sampling_probability, "max_sampling_probability", limit)
    reasons += _below("noise multiplier", noise, "min_noise_multiplier", policy.min_noise_multiplier)
    # The head's weight multiplies a rounding before the clip, and "abadi" then compares it with the clip norm. The
    # other ends need no bound: noise grows with clip_norm, and the division by head_weight comes after the noise.
    reasons += _below("privacy.clip_norm", plan.clip_norm, "min_clip_norm", policy.min_clip_norm)
    reasons += _above("privacy.head_weight", plan.head_weight, "max_head_weight", policy.max_head_weight)
    if plan.sharing is not None:
        colluding = plan.sharing.max_colluding
        reasons += _below("privacy.max_colluding", colluding, "tolerate_colluding", policy.tolerate_colluding)
    seconds = run.federation.release_seconds
    reasons += _below("federation.release_seconds", seconds, "min_release_seconds", policy.min_release_seconds)
    return reasons + _above("epsilon", 0.0, "max_epsilon", policy.max_epsilon)


def _cost(plan: PrivacyPlan, policy: PolicySection) -> list[str]:
    """Check the epsilon of the whole plan in both accounts.

    No accountant runs if a lower bound of either epsilon is above twice what is allowed.
    """
    ours = replace(plan, target_delta=policy.max_delta or plan.target_delta)
    asked = [("epsilon of the whole plan", ours, {"max_epsilon": policy.max_epsilon})]
    if policy.max_epsilon_per_study is not None:
        asked[0][2]["max_epsilon_per_study"] = policy.max_epsilon_per_study
    if plan.sharing is not None:
        name = "max_epsilon" if policy.max_epsilon_if_broken is None else "max_epsilon_if_broken"
        second: dict[str, float | None] = {name: cap_of(policy).if_broken.max_epsilon}
        asked.append(("epsilon of the whole plan if its shared noise is broken", ours.if_broken, second))
    absurd = []
    for what, each, bounds in asked:
        least = least_epsilon(each)
        if least > 2 * min(bound for bound in bounds.values() if bound is not None):
            absurd += _above_each(f"{what}, at least", least, bounds)
    return absurd or [reason for what, each, bounds in asked for reason in _above_each(what, epsilon(each), bounds)]


def _above_each(what: str, cost: float, bounds: dict[str, float | None]) -> list[str]:
    return [reason for name, bound in bounds.items() for reason in _above(what, cost, name, bound)]


def _above(what: str, value: float, name: str, bound: float | None) -> list[str]:
    return [] if bound is not None and value <= bound else [_refused(what, value, name, bound)]


def _below(what: str, value: float, name: str, bound: float | None) -> list[str]:
    return [] if bound is not None and value >= bound else [_refused(what, value, name, bound)]


def _refused(what: str, value: float, name: str, bound: float | None) -> str:
    return f"{what} = {value:g} is refused: policy.{name} {'is not set' if bound is None else f'= {bound:g}'}"


def _unit_and_delta(plan: PrivacyPlan, dataset: DatasetSection, policy: PolicySection) -> list[str]:
    reasons = []
    if plan.unit != dataset.unit:
        reasons.append(f"privacy.unit = {plan.unit!r} is refused: the dataset's unit is {dataset.unit!r}")
    for name, delta in (("privacy.target_delta", plan.target_delta), ("policy.max_delta", policy.max_delta or 0.0)):
        if delta * dataset.declared_units >= 1:  # delta allows one of 1 / delta units to be given away
            rule = f"must be below 1 / dataset.declared_units = 1 / {dataset.declared_units}"
            reasons.append(f"{name} = {delta:g} {rule}")
    return reasons
