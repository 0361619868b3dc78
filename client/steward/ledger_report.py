"""The ledger as a person or an outsider reads it."""

import json
import time
from pathlib import Path
from typing import Any

from confide.client.privacy.account import Account, Reservation, StudyAllotment
from confide.client.privacy.policy import cap_of
from confide.client.site.installation import Site, open_site
from confide.common.errors import InputError
from confide.common.privacy.filter import Cap, composed_epsilon, if_broken

FORMAT = "confide-ledger-1"
MASKED = "masked share"  # `what` of a share that left, before the number of members of its sum


def ledger_facts(path: Path) -> dict[str, Any]:
    """Return the content of `confide client ledger show --json`, rounded towards more spent and less left."""
    return ledger_facts_of(open_site(path))


def ledger_facts_of(site: Site) -> dict[str, Any]:
    """Return the same of a site that is open."""
    account, cap = site.ledger.account(), cap_of(site.config.policy)
    filtered, composed = account.by_filter_and_pld(cap.max_delta) if account.number else (0.0, 0.0)
    return {
        "dataset": site.config.dataset.id,
        "unit": site.config.dataset.unit,
        "epsilon_spent": _finite(_spent(account, cap.max_delta)),
        "epsilon_cap": cap.max_epsilon,
        "delta": cap.max_delta,
        "epsilon_by_filter": filtered,
        "epsilon_by_composed_pld": composed,
        **_second_account(account, cap),
        "no_privacy": account.infinite,
        "studies": _studies(account),
        "rows": account.number,
        "retired": account.retired,
        "chain_ok": True,  # or `open_site` would have raised
    }


def ledger_text(facts: dict[str, Any]) -> str:
    """Return the same as text for a person."""
    spent = "unlimited: it was used without privacy" if facts["no_privacy"] else facts["epsilon_spent"]
    lines = [
        f"dataset {facts['dataset']!r}, unit {facts['unit']}: epsilon spent {spent} of {facts['epsilon_cap']:g} "
        f"at delta {facts['delta']:g}"
    ]
    if "epsilon_spent_if_broken" in facts:
        lines.append(
            "  which holds if in no study more institutions are in league with the server than it allows; if that is "
            f"broken: epsilon spent {facts['epsilon_spent_if_broken']} of {facts['epsilon_cap_if_broken']:g}"
        )
    for name, study in facts["studies"].items():
        lines.append(
            f"  {name}: {study['reserved_steps']} of {study['steps']} steps reserved, epsilon {study['epsilon']}"
            f"{_condition(study)}, " + ("closed" if study["closed"] else "open")
        )
    if len(facts["studies"]) > 1:
        lines.append(
            f"  together: {facts['epsilon_by_filter']} by the Renyi filter, which decides; "
            f"{facts['epsilon_by_composed_pld']} by PLD, had all plans been chosen beforehand"
        )
    lines.append(f"  {facts['rows']} rows, chain whole" + ("; RETIRED" if facts["retired"] else ""))
    return "\n".join(lines)


def export_lines(path: Path) -> list[str]:
    """Return the ledger as JSON lines: the claimed spend, then every row with its hash.

    Raises:
        InputError: there is no row yet.
    """
    site = open_site(path)
    account = site.ledger.account()
    if account.cap is None:
        raise InputError(f"dataset {site.config.dataset.id!r} has no ledger row yet; there is nothing to export")
    claim = {
        "epsilon_spent": _finite(_spent(account, account.cap.max_delta)),
        "epsilon_cap": account.cap.max_epsilon,
        "delta": account.cap.max_delta,
    }
    if account.cap.max_epsilon_if_broken is not None:
        claim["epsilon_cap_if_broken"] = account.cap.max_epsilon_if_broken
    if account.shares_noise:
        claim["epsilon_spent_if_broken"] = _finite(account.epsilon_spent_if_broken(account.cap.max_delta))
    head = {"format": FORMAT, "dataset": site.config.dataset.id, "claim": claim}
    return [json.dumps(head), *(json.dumps({"hash": row_hash, "body": row}) for row, row_hash in site.ledger.rows())]


def egress_rows(path: Path) -> list[dict[str, Any]]:
    """Return every sealed answer, and every share that left masked, oldest first: each of them may have left."""
    return egress_of(open_site(path))


def egress_of(site: Site) -> list[dict[str, Any]]:
    """Return the same of a site that is open."""
    account = site.ledger.account()
    left = [row for row, _ in site.ledger.rows() if row["kind"] in ("seal", "release")]
    return [_left(row, account.reservations[row["reserve"]], account) for row in left]


def shares_held(site: Site) -> list[dict[str, Any]]:
    """Return study and round of every share that waits here for the members of its sum."""
    known = {item.share_file: item.key for item in site.ledger.account().reservations.values()}
    return [{"study": known[name].study, "round": known[name].round} for name in site.shares.names() if name in known]


def _left(row: dict[str, Any], reservation: Reservation, account: Account) -> dict[str, Any]:
    """Return what a row says of an answer; in a secure sum an envelope leaves first, then the masked share."""
    study = account.studies[reservation.key.study]
    is_shared = reservation.key.what == "update" and study.plan is not None and study.plan.sharing is not None
    first = "envelope" if is_shared else reservation.key.what
    is_sum = row["kind"] == "release"
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row["time"])),
        "study": reservation.key.study,
        "lineage": reservation.key.lineage,
        "round": reservation.key.round,
        "what": f"{MASKED}, in a sum of {row['members']}" if is_sum else first,
        "bytes": row["bytes"],
        "sha256": row["sha256"],
        "acknowledged": reservation.acknowledged and (is_sum or not is_shared),
    }


def close_study(path: Path, study: str) -> str:
    """Close a study; `InputError` if none of that name is open."""
    site = open_site(path)
    known = site.ledger.account().studies.get(study)
    if known is None or known.closed:
        raise InputError(f"study {study!r} is not open here; `confide client studies` lists them")
    site.ledger.close(study)
    back = (
        f"{known.steps - known.reserved_steps} steps are free again"
        if known.returns
        else ("its whole plan stays charged: it fits the cap as the only study alone")
    )
    return f"study {study!r} is closed; {back}"


def _studies(account: Account) -> dict[str, Any]:
    return {name: _study(account, name, study) for name, study in account.studies.items()}


def _study(account: Account, name: str, study: StudyAllotment) -> dict[str, Any]:
    charge, cap, sharing = account.reserved().get(name), account.cap, study.plan.sharing if study.plan else None
    facts: dict[str, Any] = {
        "steps": study.steps,
        "reserved_steps": study.reserved_steps,
        "reserved_releases": study.reserved_releases,
        "epsilon": composed_epsilon([charge], cap.max_delta) if charge and cap else None,
        "closed": study.closed,
    }
    if charge and cap and sharing:
        alone = composed_epsilon(if_broken([charge]), cap.max_delta)
        facts |= {"max_colluding": sharing.max_colluding, "epsilon_if_broken": alone}
    return facts


def _second_account(account: Account, cap: Cap) -> dict[str, Any]:
    """Return the second account's numbers, if any study shares noise."""
    if not account.shares_noise:
        return {}
    spent = _finite(account.epsilon_spent_if_broken(cap.max_delta))
    return {"epsilon_spent_if_broken": spent, "epsilon_cap_if_broken": cap.if_broken.max_epsilon}


def _condition(study: dict[str, Any]) -> str:
    if "max_colluding" not in study:
        return ""
    allowed, alone = study["max_colluding"], study["epsilon_if_broken"]
    return f" if at most {allowed} institutions are in league with the server, {alone} if that is broken"


def _spent(account: Account, delta: float) -> float:
    return account.epsilon_spent(delta) if account.number else 0.0


def _finite(value: float) -> float | None:
    return None if value == float("inf") else value
