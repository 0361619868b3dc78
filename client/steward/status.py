"""The state of a client, from its status file, its lock and its ledger."""

from pathlib import Path
from typing import Any

from confide.client.service.running import client_pid, read_status
from confide.client.site.enrolment import kit_of
from confide.client.site.installation import Site, open_site
from confide.client.steward.ledger_report import MASKED, egress_of, shares_held
from confide.common.errors import InputError


def status_facts(path: Path) -> dict[str, Any]:
    """Return the content of `confide client status --json`, from files alone."""
    return status_facts_of(open_site(path))


def status_facts_of(site: Site) -> dict[str, Any]:
    """Return the same of a site that is open."""
    state, account, left = site.config.state.dir, site.ledger.account(), egress_of(site)
    pid, told = client_pid(state), read_status(state)
    # The first exchange of a secure sum answers no round yet: its share is held here.
    answered = {
        (row["study"], row["lineage"], row["round"]) for row in left if row["what"].startswith(("update", MASKED))
    }
    try:
        server = kit_of(state).address
    except InputError:
        server = None
    return {
        "running": pid is not None,
        "pid": pid,
        "since": told.get("since") if pid else None,
        "server": server,
        "connected": bool(pid and told.get("connected")),
        "paused": (state / "paused").exists(),
        "last_ask": told.get("last_ask"),
        "studies_open": {
            name: {"rounds_answered": sum(study == name for study, _, _ in answered)}
            for name, study in account.studies.items()
            if not study.closed
        },
        "shares_held": shares_held(site),
        "last_egress": left[-1] if left else None,
    }


def status_text(facts: dict[str, Any]) -> str:
    """Return the same as text for a person."""
    server = f"server {facts['server']}" if facts["server"] else "no server joined yet"
    if facts["running"]:
        reached = "connected to" if facts["connected"] else "NOT connected to"
        lines = [f"running since {facts['since']} (process {facts['pid']}), {reached} {server}"]
    else:
        lines = [f"not running; {server}"]
    if facts["paused"]:
        lines.append("paused, so not connected: `confide client resume` answers again")
    if ask := facts["last_ask"]:  # in quotes: the server chose these words
        lines.append(f"last ask: {ask['time']}, {ask['what']!r}, study {ask['study']!r}{_round(ask['round'])}")
        if reason := ask.get("refused"):
            lines.append(f"  not done: {reason}")
    lines += [
        f"study {name}: open, {study['rounds_answered']} rounds answered"
        for name, study in facts["studies_open"].items()
    ]
    lines += [
        f"study {share['study']}, round {share['round']}: the share is held here until the members of its sum are known"
        for share in facts["shares_held"]
    ]
    if row := facts["last_egress"]:
        lines.append(
            f"last egress: {row['time']}, {row['study']} round {row['round']} {row['what']}, {row['bytes']:,} bytes"
        )
    return "\n".join(lines)


def _round(number: int | None) -> str:
    """Return the round as text, or nothing: an offer comes before all rounds, a finished adapter after them."""
    return f", round {number}" if number else ""
