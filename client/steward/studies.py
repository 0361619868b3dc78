"""Studies as a person sees them: offered, approved, opened or closed here."""

from pathlib import Path
from typing import Any

from confide.client.answers.proposed_runs import is_declined, read_offers
from confide.client.privacy.account import Account, StudyAllotment
from confide.client.privacy.policy import waits_for_approval
from confide.client.site.installation import Site, open_site
from confide.client.steward.approval import plan_here
from confide.common.config.run import RunConfig
from confide.common.errors import PolicyError
from confide.common.privacy.plan import PrivacyPlan


def list_studies(path: Path) -> list[dict[str, Any]]:
    """Return every run that was offered or approved, with its study's state."""
    return studies_of(open_site(path))


def studies_of(site: Site) -> list[dict[str, Any]]:
    """Return the same of a site that is open."""
    account = site.ledger.account()
    runs = {(run.study.name, run.sha256()): run for run in (read_offers(site.offers) if site.offers else [])}
    known = runs.keys() | account.approved
    known |= {(name, "") for name in account.studies if name not in {study for study, _ in known}}
    policy = site.config.policy
    free = {key for key, run in runs.items() if not waits_for_approval(run, policy, set())}
    told = {key: "needs no approval" if key in free else "waits for approval" for key in known}
    told |= {key: "declined" for key, run in runs.items() if site.offers and is_declined(site.offers, run)}
    same_plan = {key for key, run in runs.items() if (study := account.studies.get(key[0])) and _pins(study, run, site)}
    return [_status(account, key, told[key], same_plan=key not in runs or key in same_plan) for key in sorted(known)]


def is_open_for(site: Site, run: RunConfig) -> bool:
    """Return whether the study of a run is open here, for this run, and not closed."""
    account = site.ledger.account()
    study = account.studies.get(run.study.name)
    if study is None or study.closed:
        return False
    return _is_open(account, (run.study.name, run.sha256()), same_plan=_pins(study, run, site))


def _pins(study: StudyAllotment, run: RunConfig, site: Site) -> bool:
    """Return whether a study was opened with the plan of this run."""
    try:
        plan = plan_here(run, site)
    except PolicyError:
        return False
    return study.plan == (plan if isinstance(plan, PrivacyPlan) else None)


def _status(account: Account, key: tuple[str, str], unapproved: str, *, same_plan: bool) -> dict[str, Any]:
    name, run_sha256 = key
    study, opened = account.studies.get(name), _is_open(account, key, same_plan=same_plan)
    status = "approved" if key in account.approved else unapproved
    if study and study.closed:
        status = "closed"
    elif study and run_sha256:
        status = f"open, this run {status}" if opened else f"{status}; not opened, another run of this study is"
    elif study:
        status = "open"
    steps = f"{study.reserved_steps} of {study.steps} steps reserved" if study and opened else "nothing reserved"
    return {"study": name, "run_sha256": run_sha256, "status": status, "steps": steps}


def _is_open(account: Account, key: tuple[str, str], *, same_plan: bool) -> bool:
    """Return whether a study is open for this run. Before its first answer, each run with its plan counts.

    The ledger names a run in its answers; OPEN pins the plan alone. After an answer, only the answered run counts.
    """
    name, run_sha256 = key
    answered = {item.run_sha256 for item in account.reservations.values() if item.key.study == name}
    if not run_sha256 or not answered:
        return name in account.studies and (not run_sha256 or same_plan)
    return run_sha256 in answered
