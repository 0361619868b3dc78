"""Servers as their page sees them: institutions, runs, and events as a run writes them."""

import json
from pathlib import Path
from typing import Any

from confide.common.config.run import RunConfig
from confide.common.protocol.enrolment import JoinRequest
from confide.server.home.home import Home
from confide.server.home.queue import Queue, QueuedRun

VERSIONS = {"confide": "0.1.0", "flwr": "1.41.0", "protocol": "3"}


def add_institutions(home: Home, number: int) -> list[str]:
    """Approve so many institutions; return their names."""
    names = [f"site-{index:02}" for index in range(number)]
    for index, name in enumerate(names):
        home.registry.approve(JoinRequest(name, f"node key {index}", f"{index:064x}"))
    return names


def add_run(home: Home, queue: Queue, run: RunConfig, status: str = "running") -> QueuedRun:
    """Queue a run, and let it have this status."""
    queued = queue.add(run)
    begun = QueuedRun(queued.name, queued.lineage, status)
    queue.write(begun)
    (home.runs / queued.name).mkdir(parents=True)
    return begun


def events_of(names: list[str], num_rounds: int, *, scored_every: int = 1) -> list[dict[str, Any]]:
    """Return the events of so many rounds; the last institution misses the rounds that 7 divides."""
    sizes, shares = dict.fromkeys(names, 2000), dict.fromkeys(names, 0.5)
    offered = {"asked": len(names), "accepted": len(names), "others": {}, "versions": VERSIONS}
    events: list[dict[str, Any]] = [{"event": "offered", "declared_units": sizes, **offered}]
    for number in range(1, num_rounds + 1):
        events += [{"event": "round_started", "what": "update", "round": number, "institutions": names}]
        late = names[-1:] if number % 7 == 0 else []
        events += [{"event": "accepted", "round": number, "institution": name} for name in names if name not in late]
        reason = "no answer before the deadline"
        events += [{"event": "dropped", "round": number, "institution": name, "reason": reason} for name in late]
        ended = {"event": "round", "round": number, "accepted": len(names) - len(late), "seconds": 2.5}
        ended |= {"dropped": [f"{name}: {reason}" for name in late], "expected_units": 200.0}
        ended |= {"num_steps": dict.fromkeys(names, number), "num_releases": dict.fromkeys(names, 0)}
        if number % scored_every == 0:
            mean = 0.9 - 0.5 / (1 + number / 20)
            ended["score"] = {"metric": "accuracy", "mean": mean, "per_institution": shares}
        events.append(ended)
    return events


def write_events(folder: Path, events: list[dict[str, Any]]) -> None:
    """Append events to a run's file."""
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps({"time": 1.0, **event}) + "\n" for event in events))
