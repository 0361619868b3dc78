"""What an operator is told of runs and institutions, from what lies on the disk."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.common.protocol.enrolment import JoinRequest
from confide.server.daemon.server_state import ServerState
from confide.server.daemon.status import metrics_text, status_facts
from confide.server.home.home import init_home
from confide.server.home.queue import Queue, QueuedRun
from confide.server.results.run_directory import RunDirectory


@pytest.fixture
def shared(tmp_path: Path) -> ServerState:
    """A server with mary, who is connected, jude, who has left, and luke, who was never there."""
    home = init_home(tmp_path / "srv", ["localhost"], 8443)
    names = ("mary", "jude", "luke")
    for name in names:
        home.registry.approve(JoinRequest(name, f"node key of {name}", name[0].encode().hex() * 32, "ab" * 64))
    seen = {0: ("online", "10:00", "09:00"), 1: ("offline", "10:00", "11:00"), 2: ("registered", None, None)}
    link: Any = SimpleNamespace(admit=lambda keys: dict(enumerate(keys)), last_seen=lambda: seen)
    return ServerState(home, Queue(home.folder / "queue"), link)


def _record(shared: ServerState, run: RunConfig, name: str, status: str, events: list[dict[str, Any]]) -> None:
    queued = shared.queue.add(run)
    for suffix in ("run", "json"):
        (shared.queue.folder / f"{queued.name}.{suffix}").rename(shared.queue.folder / f"{name}.{suffix}")
    shared.queue.write(QueuedRun(name, queued.lineage, status))
    directory = RunDirectory.open(shared.home.runs / name, run)
    for event in events:
        directory.record(event)


def _asked(number: int, *names: str) -> dict[str, Any]:
    return {"event": "round_started", "what": "update", "round": number, "institutions": list(names)}


def test_the_status_tells_of_connections_versions_rounds_and_reasons_of_drops(
    shared: ServerState, make_run: Callable[..., RunConfig]
) -> None:
    versions, run = {"confide": "0.1.0", "flwr": "1.41.0"}, make_run(federation={"num_rounds": 5})
    offered = {"event": "offered", "declared_units": {"mary": 500}, "others": {"luke": "not connected"}}
    rounds: list[dict[str, Any]] = [
        {**offered, "versions": versions},
        _asked(1, "mary"),
        {"event": "accepted", "round": 1, "institution": "mary"},
        {"event": "round", "round": 1, "accepted": 1},
        _asked(2, "mary"),
        {"event": "dropped", "round": 2, "institution": "mary", "reason": "declined"},
        {"event": "round", "round": 2, "accepted": 0},
    ]
    _record(shared, run, "1-first", "completed", [{**offered, "declared_units": {"jude": 500}, "versions": versions}])
    _record(shared, run, "2-second", "running", rounds)
    shared.queue.write(QueuedRun("3-third", "ab" * 16, "queued", kind="rehearsal"))
    shared.complain("registry", InputError("registry.json is gone"))
    facts = status_facts(shared)
    assert facts["troubles"] == ["registry.json is gone"]
    assert facts["clients"] == {
        "mary": {
            **{"status": "online", "since": "10:00", "run": "2-second", "answer": "accepted", "versions": versions},
            **{"asked": 2, "accepted": 1, "dropped": "round 2: declined"},
        },
        "jude": {
            **{"status": "offline", "since": "11:00", "run": "2-second", "answer": None, "versions": None},
            **{"asked": 0, "accepted": 0, "dropped": None},
        },
        "luke": {
            **{"status": "registered", "since": None, "run": "2-second", "answer": "not connected", "versions": None},
            **{"asked": 0, "accepted": 0, "dropped": None},
        },
    }
    kept = [(one["name"], one["status"], one.get("round"), one.get("num_rounds")) for one in facts["runs"]]
    assert kept == [
        ("1-first", "completed", None, None),
        ("2-second", "running", 2, 5),
        ("3-third", "queued", None, None),
    ]


def test_who_answered_a_later_offer_is_told_beside_the_others(
    shared: ServerState, make_run: Callable[..., RunConfig]
) -> None:
    offered = {"declared_units": {"mary": 500}, "others": {"jude": "not connected", "luke": "declined"}}
    later: list[dict[str, Any]] = [
        {"event": "offered_later", "round": 2, "declared_units": {}, "others": {"jude": "waiting for approval"}},
        {"event": "offered_later", "round": 3, "declared_units": {"luke": 90}, "others": {}},
    ]
    _record(shared, make_run(), "1-run", "running", [{"event": "offered", **offered}, *later])
    clients = status_facts(shared)["clients"]
    answers = {name: client["answer"] for name, client in clients.items()}
    assert answers == {"mary": "accepted", "jude": "waiting for approval", "luke": "accepted"}


def test_an_outdated_or_damaged_folder_is_told_and_hides_nothing_else(
    shared: ServerState, make_run: Callable[..., RunConfig]
) -> None:
    """The first command of an upgrade is `server status`."""
    offered = {"event": "offered", "declared_units": {"mary": 500}, "others": {}}
    _record(shared, make_run(), "1-old", "stopped", [offered])
    mary = status_facts(shared)["clients"]["mary"]
    assert (mary["answer"], mary["versions"]) == ("accepted", None)
    (shared.home.runs / "1-old" / "events.jsonl").write_text('{"time": 1}\n', encoding="utf-8")
    (shared.queue.folder / "1-old.run").write_text("{}", encoding="utf-8")
    facts = status_facts(shared)
    mary = facts["clients"]["mary"]
    assert (mary["status"], mary["run"], mary["answer"]) == ("online", "1-old (its folder cannot be read)", None)
    [run] = facts["runs"]
    assert (run["status"], run["reason"]) == ("stopped", "(its files cannot be read)")


def test_before_any_run_there_are_connections_only(shared: ServerState) -> None:
    facts = status_facts(shared)
    assert [client["run"] for client in facts["clients"].values()] == [None] * 3
    assert facts["runs"] == facts["troubles"] == []
    assert "confide_clients_online 1\n" in metrics_text(shared)
    assert "confide_clients_approved 3\n" in metrics_text(shared)
