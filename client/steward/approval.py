"""A person reads what a run means here, and agrees to it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from confide.client.answers.agreement import decision_on
from confide.client.answers.proposed_runs import keep_offer, take_decline_back
from confide.client.data.line_check import too_few_lines
from confide.client.privacy.policy import cap_of
from confide.client.site.installation import Site, open_site
from confide.client.steward.shared_noise import SharedNoise, shared_noise
from confide.common.aloud import hash_start
from confide.common.config.run import RunConfig, make_plan
from confide.common.errors import BudgetError, ConfideError, InputError, PolicyError
from confide.common.model.base_models import find_model
from confide.common.privacy.accounting import attack_true_positive_rate, epsilon, round_up
from confide.common.privacy.plan import Plan, PrivacyPlan
from confide.common.protocol.gate import size_problem


@dataclass(frozen=True)
class Verdict:
    """The answer that an institution would give to a run.

    Attributes:
        study, run_sha256: what was asked.
        cost: epsilon of the whole plan at the policy's delta; None without privacy, or where it is refused unseen.
        spent, cap: epsilon before, and the most that is allowed for ever; delta at which both are counted.
        attack: bound on a membership attack's true-positive rate at 1 % false alarms, of this run alone.
        policy, budget: reasons of refusal.
        data: why too few of the lines here can be used.
        waits: what a person still has to do.
        left_out: why a server would take no answer of this institution.
        shared: what shared noise means; None where each institution adds all of it.
        room: why the base and a step would not fit the device here; only `review` looks.
        terms: what else is agreed to, as `terms_of` states it.
    """

    study: str
    run_sha256: str
    cost: float | None
    spent: float
    cap: float
    delta: float
    attack: float | None
    policy: tuple[str, ...]
    budget: str | None
    data: str | None
    waits: str | None
    left_out: str | None
    shared: SharedNoise | None
    room: str | None
    terms: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """0 accepted (or waiting for approval alone), 3 policy, 4 budget, 1 the data."""
        found = ((self.policy, PolicyError), (self.budget, BudgetError), (self.data, ConfideError))
        return next((error.exit_code for reason, error in found if reason), 0)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "study": self.study,
            "run_sha256": self.run_sha256,
            "accepted": not self.exit_code and not self.waits,
            "epsilon": self.cost,
            "epsilon_spent": self.spent,
            "epsilon_cap": self.cap,
            "delta": self.delta,
            "attack_true_positive_rate": self.attack,
            "refused_by_policy": list(self.policy),
            "refused_by_budget": self.budget,
            "refused_by_data": self.data,
            "waits_for": self.waits,
            "left_out_by_the_server": self.left_out,
            "does_not_fit": self.room,
            **({"shared_noise": self.shared.as_json()} if self.shared else {}),
            "terms": self.terms,
        }

    def agreed(self) -> list[str]:
        """Return what a person agrees to."""
        lines = [f"study {self.study}, run {hash_start(self.run_sha256)}", *_told(self.terms)]
        if self.cost is not None:
            spent = f"spent so far {self.spent} of {self.cap:g}"
            lines.append(f"  would cost epsilon {self.cost} at delta {self.delta:g}; {spent}")
        lines += self.shared.lines() if self.shared else []
        if self.attack is not None:
            lines.append(f"  an attacker would recognise at most {self.attack:.2%} of the members at 1 % false alarms")
        return lines

    def text(self) -> str:
        """For a person."""
        lines = self.agreed()
        lines += [f"  refused by policy: {reason}" for reason in self.policy]
        lines += [f"  refused by budget: {self.budget}"] if self.budget else []
        lines += [f"  refused by the data: {self.data}"] if self.data else []
        lines += [f"  the server would leave you out: {self.left_out}"] if self.left_out else []
        lines += [f"  would not fit this machine: {self.room}"] if self.room else []
        if self.waits and not self.exit_code:
            lines.append(f"  {self.waits} (with --run FILE while no server has offered it)")
        if not self.exit_code and not self.waits:
            lines.append("  would be accepted")
        return "\n".join(lines)


def review(run: RunConfig, path: Path) -> Verdict:
    """Return the answer of a site.toml's institution to a locked run. Nothing is written."""
    return verdict_of(run, open_site(path))


def verdict_of(run: RunConfig, site: Site) -> Verdict:
    """Return the answer of an institution to a locked run. Nothing is written."""
    return replace(_judge(run, site), room=_room(run, site))


def approve_run(run: RunConfig, study: str, path: Path) -> str:
    """Approve a locked run; returns what was agreed to.

    Raises:
        InputError: the run is of another study.
        PolicyError, BudgetError: it would be refused in any case.
        ConfideError: too few of the lines here can be used: it would cost epsilon for noise.
    """
    if run.study.name != study:
        raise InputError(f"study {study!r} was named, but the run is of study {run.study.name!r}; name that one")
    site = open_site(path)
    verdict = _judge(run, site)
    if verdict.policy:
        raise PolicyError("; ".join(verdict.policy))
    if verdict.budget:
        raise BudgetError(verdict.budget)
    if verdict.data:
        raise ConfideError(verdict.data)
    if site.offers:
        keep_offer(site.offers, run)  # `doctor` looks at its labels and its base model
    site.ledger.approve(study, run.sha256(), plan_here(run, site), cap_of(site.config.policy))
    if site.offers:
        take_decline_back(site.offers, run)
    first, *agreed = verdict.agreed()
    return "\n".join([f"{first}: approved", *agreed])


def terms_of(run: RunConfig) -> dict[str, Any]:
    """Return what a person agrees to beside the cost: base model, work and time of a round, the bound on one unit."""
    private = run.privacy.unit != "none"
    return {
        "base_model": run.model.base,
        "base_model_sha256": run.model.sha256,
        **({"start_sha256": run.adapter.start_sha256} if run.adapter.start_sha256 else {}),
        "rounds": run.federation.num_rounds,
        "steps_a_round": run.local.steps,
        "release_seconds": run.federation.release_seconds,
        "unit": run.privacy.unit,
        "clip_norm": run.privacy.clip_norm if private else None,
        "clipping": run.privacy.clipping if private else None,
        "head_weight": run.privacy.head_weight if private else None,
    }


def _told(terms: dict[str, Any]) -> list[str]:
    """Terms as two lines; a name that a server chose is quoted, so that it cannot move a terminal's cursor."""
    work = (
        f"  trains base model {terms['base_model']!r} (sha256 {str(terms['base_model_sha256'])[:12]}); rounds: "
        f"{terms['rounds']}, steps a round: {terms['steps_a_round']}; answers leave at multiples of "
        f"{terms['release_seconds']:g} s"
    )
    if start := terms.get("start_sha256"):
        work += f"; goes on from a finished adapter (sha256 {start[:12]})"
    if terms["unit"] == "none":
        return [work, "  WITHOUT PRIVACY: no person's part is clipped, and no noise is added"]
    return [
        work,
        f"  one {terms['unit']} moves a step by at most clip norm {terms['clip_norm']:g} "
        f"({terms['clipping']} clipping), in which the head weighs {terms['head_weight']:g} times",
    ]


def _judge(run: RunConfig, site: Site) -> Verdict:
    plan, account, decision = plan_here(run, site), site.ledger.account(), decision_on(run, site)
    cap, reasons, budget = decision.cap, decision.refusals, decision.budget
    # Every epsilon here is at the policy's delta, which decides and counts, whatever delta the run names.
    ours = replace(plan, target_delta=cap.max_delta) if isinstance(plan, PrivacyPlan) and not reasons else None
    return Verdict(
        study=run.study.name,
        run_sha256=run.sha256(),
        cost=epsilon(ours) if ours else None,
        spent=account.epsilon_spent(cap.max_delta) if account.number else 0.0,
        cap=cap.max_epsilon,
        delta=cap.max_delta,
        attack=round_up(attack_true_positive_rate(ours, 0.01)) if ours else None,
        policy=reasons,
        budget=budget,
        data=None if reasons or budget else too_few_lines(site.config.dataset, [run], site.config.models.dir),
        waits=decision.waits,
        left_out=size_problem(site.config.dataset.declared_units, run.local.nominal_units),
        shared=shared_noise(run, ours, site, account) if ours else None,
        room=None,
        terms=terms_of(run),
    )


def _room(run: RunConfig, site: Site) -> str | None:
    """Return why a run would not fit the device; None if it does, or if `doctor` has to be asked first."""
    from confide.common.model.memory import fit_of

    try:
        base = find_model(run.at(run.model.base), site.config.models.dir)
        return fit_of(run, base, site.config.compute).problem(run.model.base)
    except (ConfideError, OSError):
        return None  # no base model or no device of this name: `doctor` says so


def plan_here(run: RunConfig, site: Site) -> Plan:
    """Return the plan of a run at this institution; `PolicyError` for a run that fixes no noise."""
    try:
        return make_plan(run, site.config.dataset.declared_units)
    except ValueError as error:  # a server may offer anything
        raise PolicyError(
            f"run {hash_start(run.sha256())} of study {run.study.name} cannot be followed: {error}"
        ) from None
