"""The limits of a simulated institution: it agrees to its run, and to nothing more."""

from confide.client.config import PolicySection
from confide.common.config.run import RunConfig, make_plan
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.plan import NoPrivacy
from confide.common.protocol.enrolment import partner_fingerprint


def partners_of(run: RunConfig) -> dict[str, str]:
    """Return the fingerprint of each member's key, as a person would have compared it."""
    return {name: partner_fingerprint(key) for name, key in run.study.keys.items()}


def allowing(run: RunConfig, declared_units: int) -> PolicySection:
    """Return the policy of an institution that agrees to this run and to nothing more."""
    plan = make_plan(run, declared_units)
    common = PolicySection(
        studies=(run.study.name,), base_models=(str(run.model.sha256),), require_approval=False, share_metrics="private"
    )
    if isinstance(plan, NoPrivacy):
        return common.model_copy(update={"allow_no_privacy": True})
    bounds = {
        "max_epsilon": epsilon(plan),
        "max_delta": plan.target_delta,
        "min_noise_multiplier": min(plan.noise_multiplier, plan.validation_noise_multiplier),
        "max_steps": plan.num_steps,
        "max_rounds": run.federation.num_rounds,
        "max_sampling_probability": plan.sampling_probability,
        "min_clip_norm": plan.clip_norm,
        "max_head_weight": plan.head_weight,
        "min_release_seconds": run.federation.release_seconds,
    }
    if plan.sharing is not None:
        bounds |= {"max_epsilon_if_broken": epsilon(plan.if_broken), "tolerate_colluding": plan.sharing.max_colluding}
    return common.model_copy(update=bounds)
