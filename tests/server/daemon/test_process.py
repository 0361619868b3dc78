"""What the server's own thread does: little while idle, and it outlives a disk that is full."""

import errno
import json
import logging
import os
import socket
import sqlite3
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from sqlalchemy.exc import OperationalError

from confide.common.config.run import RunConfig
from confide.common.errors import InputError, PolicyError
from confide.common.protocol.enrolment import JoinRequest
from confide.server.daemon import process, worker
from confide.server.daemon.logs import JsonLines
from confide.server.daemon.server_state import ServerState
from confide.server.fleet.connection_limits import MAX_CONNECTIONS, Connection
from confide.server.fleet.request_bodies import MAX_HELD, SMALL_BODY
from confide.server.home.certificates import make_certificates
from confide.server.home.home import Home, init_home
from confide.server.home.queue import Queue, QueuedRun


@dataclass
class TellsFlower:
    """Stands for the Link: remembers what it was told."""

    told: list[list[str]] = field(default_factory=list)

    def admit(self, keys: dict[str, bytes]) -> dict[int, str]:
        self.told.append(sorted(keys))
        return dict(enumerate(sorted(keys)))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return init_home(tmp_path / "srv", ["localhost"], 8443)


def test_flower_is_told_at_the_start_and_then_only_of_a_changed_registry(home: Home) -> None:
    link: Any = TellsFlower()
    shared = ServerState(home, Queue(home.folder / "queue"), link)
    assert shared.nodes() == shared.nodes() == {}
    assert link.told == [[]], "a database of before must not keep whom nobody approved"
    for name in ("mary", "jude"):
        home.registry.approve(JoinRequest(name, f"node key of {name}", name.encode().hex() * 8, "ab" * 64))
    assert shared.nodes() == shared.nodes() == {0: "jude", 1: "mary"}
    home.registry.revoke("jude")
    assert shared.nodes() == shared.nodes() == {0: "mary"}
    assert link.told == [[], ["jude", "mary"], ["mary"]]


def test_an_approval_that_flower_did_not_take_is_told_again(home: Home) -> None:
    class Fails(TellsFlower):
        def admit(self, keys: dict[str, bytes]) -> dict[int, str]:
            nodes = super().admit(keys)
            if len(self.told) == 1:
                raise OSError("no space")
            return nodes

    link: Any = Fails()
    shared = ServerState(home, Queue(home.folder / "queue"), link)
    with pytest.raises(OSError, match="no space"):
        shared.nodes()
    assert shared.nodes() == {}
    assert len(link.told) == 2


def test_the_newest_registry_is_told_last_whoever_asks(home: Home) -> None:
    """A status that is asked for while an operator revokes must not bring the revoked back."""
    entered, go_on = threading.Event(), threading.Event()

    class Slow(TellsFlower):
        def admit(self, keys: dict[str, bytes]) -> dict[int, str]:
            if keys:
                entered.set()
                go_on.wait(10)
            return super().admit(keys)

    link: Any = Slow()
    shared = ServerState(home, Queue(home.folder / "queue"), link)
    home.registry.approve(JoinRequest("mary", "node key", "ab" * 32, "ab" * 64))
    threads = [threading.Thread(target=shared.nodes) for _ in range(2)]
    threads[0].start()
    assert entered.wait(10)
    home.registry.revoke("mary")
    threads[1].start()
    threads[1].join(1)  # it must wait for the first; without that it would be done now
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert link.told == [["mary"], []]


def test_the_queue_tells_of_a_new_run(tmp_path: Path, make_run: Any) -> None:
    queue = Queue(tmp_path / "queue")
    assert not queue.changed.is_set()
    run: RunConfig = make_run()
    queue.add(run)
    assert queue.changed.is_set()


_RUN = QueuedRun("a-run", "ab" * 16, "queued")


@pytest.fixture
def shared(tmp_path: Path) -> Any:
    queue = Queue(tmp_path / "queue")
    queue.folder.mkdir()
    queue.write(_RUN)
    home = SimpleNamespace(folder=tmp_path, registry=SimpleNamespace(approved=dict))
    return ServerState(home, queue)  # type: ignore[arg-type]


def _full(*rest: object) -> QueuedRun:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_run_that_finds_the_disk_full_is_stopped_with_the_remedy(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(worker._CARRY_OUT, "run", _full)
    worker._carry_out(shared, None, _RUN)  # type: ignore[arg-type]
    [ended] = shared.queue.all()
    assert ended.status == "stopped"
    remedy = f"mend it, then `confide server resume a-run --home {shared.home.folder}`"
    assert f"No space left on device; {remedy}" in ended.reason


def test_a_run_whose_link_db_fails_is_stopped_and_told_why(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest writes of a round go there; the texts are SQLite's own."""
    full = OperationalError("INSERT", {"private": 1}, sqlite3.OperationalError("database or disk is full"))

    def fails(*rest: object) -> QueuedRun:
        raise full

    monkeypatch.setitem(worker._CARRY_OUT, "run", fails)
    worker._carry_out(shared, None, _RUN)  # type: ignore[arg-type]
    [ended] = shared.queue.all()
    assert ended.status == "stopped"
    assert f"{shared.home.folder}: link.db: database or disk is full; mend it, then `confide" in ended.reason
    shared.complain("worker", full)
    assert shared.troubles == {"worker": "link.db: database or disk is full"}


@pytest.mark.parametrize("told", ["queued", "stopped"])
def test_what_an_operator_was_told_is_not_undone_when_a_run_ends(
    shared: Any, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    def meanwhile(shared: Any, link: Any, queued: QueuedRun) -> QueuedRun:
        shared.queue.write(replace(queued, status=told))
        return replace(queued, status="completed")

    monkeypatch.setitem(worker._CARRY_OUT, "run", meanwhile)
    worker._carry_out(shared, None, _RUN)  # type: ignore[arg-type]
    assert [queued.status for queued in shared.queue.all()] == [told]


def test_a_run_that_was_resumed_while_it_stopped_goes_on(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its account and its child process take some seconds to end, and all that time it says "running"."""

    def meanwhile(shared: Any, link: Any, queued: QueuedRun) -> QueuedRun:
        shared.stopping = None
        return replace(queued, status="stopped", reason="after round 3")

    monkeypatch.setitem(worker._CARRY_OUT, "run", meanwhile)
    shared.stopping = _RUN.name
    worker._carry_out(shared, None, _RUN)  # type: ignore[arg-type]
    assert shared.queue.all() == [_RUN]


def test_a_run_that_a_server_gave_out_as_it_ended_is_looked_at_again(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(shared: Any, link: Any, queued: QueuedRun) -> QueuedRun:
        shared.going = False
        return replace(queued, status="completed")

    monkeypatch.setitem(worker._CARRY_OUT, "run", ends)
    worker._carry_out(shared, None, _RUN)  # type: ignore[arg-type]
    assert [queued.status for queued in shared.queue.all()] == ["running"]


def test_how_a_run_ended_is_written_whatever_another_s_file_holds(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*rest: object) -> QueuedRun:
        (shared.queue.folder / "another.json").write_bytes(b"{")
        raise PolicyError("too few accepted")

    monkeypatch.setitem(worker._CARRY_OUT, "run", refused)
    worker._carry_out(shared, None, _RUN)  # type: ignore[arg-type]
    assert shared.queue.get(_RUN.name).status == "refused"


def test_all_addresses_are_those_of_both_kinds(home: Home, tmp_path: Path) -> None:
    assert home.config.server.host == "0.0.0.0"  # noqa: S104
    assert init_home(tmp_path / "six", ["2001:db8::5"], 8443).config.server.host == "::"
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with process._bind("::", 0) as listening:
        for host in ("::1", "127.0.0.1"):
            socket.create_connection((host, listening.getsockname()[1]), timeout=5).close()


def test_a_run_that_was_stopped_before_it_began_does_not_begin(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the worker's look at the queue and its first step."""
    monkeypatch.setitem(worker._CARRY_OUT, "run", lambda *rest: pytest.fail("it began"))
    shared.queue.write(replace(_RUN, status="stopped"))
    worker._carry_out(shared, None, _RUN)  # type: ignore[arg-type]
    assert [queued.status for queued in shared.queue.all()] == ["stopped"]


def test_the_thread_lives_on_when_not_even_a_status_can_be_written(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, refusals = Queue.write, [True, True]

    def written(self: Queue, queued: QueuedRun) -> None:
        if refusals:
            refusals.pop()
            _full()
        write(self, queued)

    def carried_out(shared: Any, link: object, queued: QueuedRun) -> QueuedRun:
        shared.going = False
        return QueuedRun(queued.name, queued.lineage, "completed")

    monkeypatch.setattr(Queue, "write", written)
    monkeypatch.setitem(worker._CARRY_OUT, "run", carried_out)
    monkeypatch.setattr(worker, "_RETRY_SECONDS", 0.01)
    link = SimpleNamespace(admit=lambda keys: {})
    worker.work(shared, lambda: link, SimpleNamespace(started=True))  # type: ignore[arg-type]
    assert [run.status for run in shared.queue.all()] == ["running"], "it was carried out, and the server ended"


@pytest.mark.parametrize("place", ["a run's status", "the registry at the start", "Flower's state"])
def test_the_thread_outlives_any_error_and_says_it_once(
    shared: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    """Else the server would say that it is ready, and carry out nothing for ever."""
    broken = [True] * 3

    def breaks(error: Exception, call: Any) -> Any:
        def called(*arguments: Any) -> Any:
            if broken:
                broken.pop()
                raise error
            return call(*arguments)

        return called

    def carried_out(shared: Any, link: object, queued: QueuedRun) -> QueuedRun:
        shared.going = False
        return QueuedRun(queued.name, queued.lineage, "completed")

    link = SimpleNamespace(admit=lambda keys: {})
    if place == "a run's status":
        monkeypatch.setattr(Queue, "all", breaks(ValueError("not JSON"), Queue.all))
    elif place == "Flower's state":
        link.admit = breaks(RuntimeError("database or disk is full"), link.admit)
    else:
        shared.home.registry.approved = breaks(InputError("not a registry"), dict)
    monkeypatch.setitem(worker._CARRY_OUT, "run", carried_out)
    monkeypatch.setattr(worker, "_RETRY_SECONDS", 0.01)
    worker.work(shared, lambda: link, SimpleNamespace(started=True))  # type: ignore[arg-type]
    assert [run.status for run in shared.queue.all()] == ["running"], "it was carried out, and the server ended"
    [said] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert said.exc_info, "where it came from"


def test_a_trouble_that_comes_back_is_said_again(shared: Any, caplog: pytest.LogCaptureFixture) -> None:
    link: Any = TellsFlower()
    shared.link = link
    shared.nodes()

    def unreadable() -> dict[str, object]:
        raise InputError("not a registry")

    for approved in (unreadable, unreadable, dict, unreadable):
        shared.home.registry.approved = approved
        shared.nodes()
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2


def test_a_registry_that_cannot_be_read_leaves_everybody_as_they_were(home: Home) -> None:
    """An operator copies a backup over it, or saves it from an editor, in the middle of a run."""
    link: Any = TellsFlower()
    shared = ServerState(home, Queue(home.folder / "queue"), link)
    path = home.folder / "registry.json"
    home.registry.approve(JoinRequest("mary", "node key", "ab" * 32, "ab" * 64))
    assert set(shared.nodes().values()) == {"mary"}
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    assert not shared.is_over("a-run"), "the run goes on"
    assert [member.update_key for member in shared.members().values()] == ["ab" * 32]
    path.unlink()
    assert set(shared.nodes().values()) == {"mary"}, "a file that is away is not an empty one"
    path.write_bytes(whole)
    home.registry.revoke("mary")
    assert shared.nodes() == {}
    assert link.told == [["mary"], []]


def test_a_run_that_names_institutions_is_theirs_alone(home: Home) -> None:
    link: Any = TellsFlower()
    shared = ServerState(home, Queue(home.folder / "queue"), link)
    for name in ("mary", "jude"):
        home.registry.approve(JoinRequest(name, f"node key of {name}", name[0].encode().hex() * 32, "ab" * 64))
    for named, invited in (((), ["jude", "mary"]), (("mary", "anne"), ["mary"])):
        run: Any = SimpleNamespace(study=SimpleNamespace(institutions=named))
        assert sorted(member.institution for member in shared.members_of(run).values()) == invited


def test_the_log_tells_where_an_error_came_from_and_not_what_a_client_sent() -> None:
    try:
        raise ValueError("Mrs Canary")
    except ValueError:
        record = logging.LogRecord("confide", logging.ERROR, "", 0, "a run failed", None, sys.exc_info())
    line = json.loads(JsonLines().format(record))
    assert line["error"] == "ValueError"
    assert line["at"][-1].endswith(" test_the_log_tells_where_an_error_came_from_and_not_what_a_client_sent")
    assert "Canary" not in str(line)


def test_both_ports_bound_heads_and_the_public_one_its_connections(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    class CaughtError(Exception):
        pass

    configs, rooms = list[uvicorn.Config](), list[int]()

    def caught(config: uvicorn.Config) -> None:
        configs.append(config)
        raise CaughtError

    monkeypatch.setattr(process, "_bind", lambda host, port: None)
    monkeypatch.setattr(process, "LimitedListener", lambda listening, most: rooms.append(most))
    monkeypatch.setattr(process, "most_connections", lambda: 7)
    monkeypatch.setattr(process, "fleet_app", lambda database, port: None)
    server = SimpleNamespace(config=SimpleNamespace(load=lambda: None))
    monkeypatch.setattr(process, "FleetServer", lambda config, clients: configs.append(config) or server)  # type: ignore[func-returns-value]
    monkeypatch.setattr(process, "PortServer", caught)
    monkeypatch.setenv("FLWR_HOME", "set by serve")
    with pytest.raises(CaughtError):
        process.serve(home, lambda public, admin: None)
    assert [config.http for config in configs] == [Connection, Connection]
    assert rooms == [7]


def test_a_certificate_of_another_key_is_told_before_the_server_says_it_listens(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after half of a renewal, or of a backup that was put back."""
    make_certificates(home.folder, ["localhost"])
    (home.folder / "tls.key").rename(home.folder / "keys" / "tls.key")
    monkeypatch.setattr(process, "_bind", lambda host, port: None)
    monkeypatch.setattr(process, "LimitedListener", lambda listening, most: None)
    monkeypatch.setattr(process, "fleet_app", lambda database, port: None)
    monkeypatch.setenv("FLWR_HOME", "set by serve")
    told = rf"{home.folder}/keys: tls\.pem with tls\.key cannot be used: .*docs/deployment\.md, Keys"
    with pytest.raises(InputError, match=told):
        process.serve(home, lambda public, admin: pytest.fail("it was told to listen"))
    (home.folder / "keys" / "tls.pem").unlink()
    with pytest.raises(InputError, match="No such file or directory"):
        process.serve(home, lambda public, admin: pytest.fail("it was told to listen"))


def test_hundreds_of_clients_may_hold_a_poll_and_send_a_heartbeat() -> None:
    assert MAX_CONNECTIONS > 2 * 900, "900 clients"
    assert MAX_CONNECTIONS * SMALL_BODY <= MAX_HELD, "no more than the large bodies"
