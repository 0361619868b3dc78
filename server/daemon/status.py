"""Facts for the operator: runs and their progress, institutions and the fate of their answers, troubles."""

from dataclasses import dataclass
from typing import Any

from confide.server.daemon.server_state import ServerState
from confide.server.home.queue import ENDED, QueuedRun
from confide.server.results.run_directory import RunDirectory
from confide.server.rounds.roster import Institution
from confide.server.rounds.run_context import Event


@dataclass(frozen=True)
class _Record:
    """The content of the latest run's folder: its last offer and all participants."""

    run: str
    offer: Event
    institutions: dict[str, Institution]


def status_facts(shared: ServerState) -> dict[str, Any]:
    """Return all facts for `server status`."""
    runs = shared.queue.all()
    begun = [run for run in runs if run.kind == "run" and (shared.home.runs / run.name / "events.jsonl").is_file()]
    latest = next((run for run in begun if run.status == "running"), begun[-1] if begun else None)
    record = None if latest is None else _record(shared, latest)
    seen = shared.link.last_seen() if shared.link else {}
    return {
        "address": shared.home.address,
        "troubles": sorted(shared.troubles.values()),
        "clients": {
            name: {**_connection(*seen.get(node, ("unknown", None, None))), **_part(name, record)}
            for node, name in shared.nodes().items()
        },
        "runs": [_run(shared, run) for run in runs],
    }


def _record(shared: ServerState, latest: QueuedRun) -> _Record:
    directory = RunDirectory.at(shared.home.runs / latest.name)
    try:
        offer = _answers_to_offers(directory.events())
        return _Record(latest.name, offer, directory.institutions(shared.queue.run_of(latest)))
    except (ValueError, KeyError, TypeError, OSError):
        return _Record(f"{latest.name} (its folder cannot be read)", {}, {})


def _answers_to_offers(events: list[Event]) -> Event:
    """Return the last offer to all institutions, updated with answers to later offers to single ones."""
    last: Event = {}
    for event in events:
        if event["event"] == "offered":
            last = dict(event)
        if event["event"] == "offered_later":
            accepted, others = event["declared_units"], event["others"]
            before = {name: answer for name, answer in last.get("others", {}).items() if name not in accepted}
            last = {**last, "declared_units": {**last["declared_units"], **accepted}, "others": {**before, **others}}
    return last


def _connection(status: str, came: str | None, left: str | None) -> dict[str, str | None]:
    """Return the status of a client and the time since when; None if it never connected since the server started."""
    online = status == "online"
    return {"status": status, "since": came if online else left}


def _part(name: str, record: _Record | None) -> dict[str, Any]:
    """Return an institution's part in the latest run: its answer to the offer, its rounds, its last drop reason.

    An institution that accepts runs the server's versions. The answer of any other says which versions it runs.
    """
    offer = record.offer if record else {}
    accepted = name in offer.get("declared_units", {})
    institution = record.institutions.get(name, Institution(name, 0)) if record else Institution(name, 0)
    return {
        "run": record.run if record else None,
        "answer": "accepted" if accepted else offer.get("others", {}).get(name),
        "versions": offer.get("versions") if accepted else None,
        "asked": len({number for what, number in institution.asks if what == "update"}),
        "accepted": institution.accepted,
        "dropped": institution.dropped[-1] if institution.dropped else None,
    }


def _run(shared: ServerState, queued: QueuedRun) -> dict[str, Any]:
    """Return the facts of a run. A run that is not completed also gets its last round and its number of rounds."""
    facts = {"name": queued.name, "kind": queued.kind, "status": queued.status, "reason": queued.reason}
    if queued.kind != "run" or queued.status == "completed":  # after years there are many completed runs
        return facts
    try:
        num_rounds = shared.queue.run_of(queued).federation.num_rounds
        rounds = [line["round"] for line in RunDirectory.at(shared.home.runs / queued.name).rounds()]
    except (ValueError, KeyError, OSError):
        return {**facts, "reason": f"{queued.reason} (its files cannot be read)".strip()}
    return {**facts, "round": max(rounds, default=0), "num_rounds": num_rounds}


def metrics_text(shared: ServerState) -> str:
    """Return the metrics in Prometheus' text format: runs of each status, institutions online and approved."""
    runs = [run.status for run in shared.queue.all()]
    online = sum(status == "online" for status, *_ in (shared.link.last_seen() if shared.link else {}).values())
    lines = ["# TYPE confide_runs gauge"]
    lines += [f'confide_runs{{status="{status}"}} {runs.count(status)}' for status in ("queued", "running", *ENDED)]
    lines += ["# TYPE confide_clients_online gauge", f"confide_clients_online {online}"]
    lines += ["# TYPE confide_clients_approved gauge", f"confide_clients_approved {len(shared.nodes())}"]
    return "\n".join(lines) + "\n"
