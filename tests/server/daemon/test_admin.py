"""The admin port, and the operator's commands on it."""

import asyncio
import errno
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from confide.common.cli.main import main
from confide.common.config.run import MAX_RUN_BYTES, RunConfig
from confide.common.errors import ConfideError, InputError
from confide.common.protocol.enrolment import JoinRequest, write_json
from confide.server.commands import admin_client
from confide.server.daemon import worker
from confide.server.daemon.admin import admin_app
from confide.server.daemon.server_state import ServerState
from confide.server.home.home import Home, init_home, open_home
from confide.server.home.queue import Queue, QueuedRun
from confide.server.home.registry import Registry
from confide.server.results.run_directory import RunDirectory

MakeRun = Callable[..., RunConfig]


def _full(*rest: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return init_home(tmp_path / "srv", ["localhost"], 8443)


@pytest.fixture
def shared(home: Home, monkeypatch: pytest.MonkeyPatch) -> ServerState:
    """A server's, which the commands reach without a port."""
    shared = ServerState(home, Queue(home.folder / "queue"))
    app = httpx.ASGITransport(admin_app(shared), raise_app_exceptions=False)

    async def answer(request: httpx.Request) -> httpx.Response:
        async with httpx.AsyncClient(transport=app) as web:
            got = await web.request(request.method, request.url, content=request.content, headers=request.headers)
            return httpx.Response(got.status_code, content=got.content)

    transport, client = httpx.MockTransport(lambda request: asyncio.run(answer(request))), httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **settings: client(**settings, transport=transport))
    return shared


def _call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["confide", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def _propose(home: Home, run: RunConfig) -> Any:
    return admin_client.ask(home, "POST", "/runs", {"run": run.canonical_json(), "kind": "run"})


def test_a_run_counts_as_it_goes_to_institutions_and_not_as_it_travels_here(
    shared: ServerState, make_run: MakeRun
) -> None:
    """Thousands of short labels: each quote takes two bytes more on the way."""

    def labelled(size: int) -> RunConfig:
        labels = [f"é{number:04x}" for number in range(size)]
        return make_run(task={"kind": "text-classification", "labels": labels, "max_length": 64})

    most = 2 + (MAX_RUN_BYTES - len(labelled(2).canonical_json().encode())) // len('"é0000",'.encode())
    assert _propose(shared.home, labelled(most))["name"]
    with pytest.raises(InputError, match=f"at most {MAX_RUN_BYTES} bytes"):
        _propose(shared.home, labelled(most + 1))


def test_orders_touch_no_file_in_the_loop_that_serves_the_institutions(
    shared: ServerState, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat waits 5 s at most, and a disk may be slow."""
    threads = list[bool]()
    for name in ("add", "get"):
        method = getattr(Queue, name)

        def watched(queue: Queue, *rest: Any, method: Any = method) -> Any:
            threads.append(threading.current_thread() is threading.main_thread())
            return method(queue, *rest)

        monkeypatch.setattr(Queue, name, watched)
    name = _propose(shared.home, make_run())["name"]
    for method, order in (("GET", "events"), ("POST", "stop"), ("POST", "resume")):
        admin_client.ask(shared.home, method, f"/runs/{name}/{order}")
    assert (len(threads) >= 4, any(threads)) == (True, False)


def test_a_line_that_is_being_written_is_not_shown_yet(shared: ServerState, make_run: MakeRun) -> None:
    name = _propose(shared.home, make_run())["name"]
    path = shared.home.runs / name / "events.jsonl"
    path.parent.mkdir()
    assert admin_client.ask(shared.home, "GET", f"/runs/{name}/events")["events"] == []
    first, second = (json.dumps({"event": "dropped", "reason": text}, ensure_ascii=False) for text in "aé")
    for cut in range(1, len(second.encode())):
        path.write_bytes(first.encode() + b"\n" + second.encode()[:cut])
        assert admin_client.ask(shared.home, "GET", f"/runs/{name}/events")["events"] == [first]
    path.write_text(f"{first}\n{second}\n", encoding="utf-8")
    assert admin_client.ask(shared.home, "GET", f"/runs/{name}/events?after=1")["events"] == [second]


def test_stop_tells_what_has_become_of_the_run(
    shared: ServerState, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = _propose(shared.home, make_run())["name"]
    shared.queue.write(type(shared.queue.get(name))(name, "ab" * 16, "running"))
    assert _call(monkeypatch, "server", "stop", name, "--home", shared.home.folder) == 0
    assert capsys.readouterr().out == "running; it stops after its open round\n"
    shared.queue.write(type(shared.queue.get(name))(name, "ab" * 16, "queued"))
    assert _call(monkeypatch, "server", "stop", name, "--home", shared.home.folder) == 0
    assert capsys.readouterr().out == "stopped\n"


def test_a_run_that_was_to_stop_and_is_resumed_before_it_has_does_not_stop(
    shared: ServerState, make_run: MakeRun
) -> None:
    name = _propose(shared.home, make_run())["name"]
    shared.queue.write(QueuedRun(name, "ab" * 16, "running"))
    for command, stopping in (("stop", name), ("resume", None)):
        assert admin_client.ask(shared.home, "POST", f"/runs/{name}/{command}") == {"status": "running"}
        assert shared.stopping == stopping


def test_a_stop_that_comes_as_its_run_begins_stops_it(
    shared: ServerState, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command has read "queued"; the worker was faster."""
    name = _propose(shared.home, make_run())["name"]
    get = Queue.get

    def slow(queue: Queue, wanted: str) -> QueuedRun:
        found = get(queue, wanted)
        monkeypatch.setattr(Queue, "get", get)
        queue.write(QueuedRun(name, found.lineage, "running"))
        return found

    monkeypatch.setattr(Queue, "get", slow)
    assert admin_client.ask(shared.home, "POST", f"/runs/{name}/stop") == {"status": "running"}
    assert (shared.stopping, shared.queue.get(name).status) == (name, "running")


def test_a_completed_run_resumes_to_give_its_adapter_out_and_never_begins_anew(
    shared: ServerState, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    name = _propose(shared.home, run)["name"]
    shared.queue.write(QueuedRun(name, "ab" * 16, "completed"))
    resume = "server", "resume", name, "--home", shared.home.folder
    assert _call(monkeypatch, *resume) == 2
    assert "nothing of it is left to give out" in capsys.readouterr().err
    assert shared.queue.get(name).status == "completed", "its folder was moved away: it would be trained once more"
    RunDirectory(shared.home.runs / name, run).record({"event": "completed"})
    assert _call(monkeypatch, *resume) == 0
    assert shared.queue.get(name).status == "queued"
    assert _call(monkeypatch, "server", "stop", name, "--home", shared.home.folder) == 0
    assert shared.queue.get(name).status == "completed"


def _get(path: str) -> httpx.Response:
    with httpx.Client() as web:
        return web.get(f"http://127.0.0.1{path}")


def test_a_server_is_healthy_and_not_ready_while_its_registry_is_away(
    shared: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor must neither restart it for that nor believe that it carries out runs."""
    assert (_get("/health").status_code, _get("/ready").status_code) == (200, 503), "it starts"
    link: Any = SimpleNamespace(admit=lambda keys: {}, last_seen=dict)
    path, kept = shared.home.folder / "registry.json", shared.home.folder / "kept"
    path.rename(kept)
    shared.link, shared.going = link, False  # the worker looks once
    with pytest.raises(InputError) as gone:
        worker._look(shared, link)
    shared.complain("worker", gone.value)
    for answer in (_get("/ready"), _get("/metrics")):
        assert (answer.status_code, "registry.json is gone; put it back" in answer.text) == (503, True)
    assert _get("/health").status_code == 200
    kept.rename(path)
    seen: list[int] = []

    def carry_out(shared: ServerState, link: object, queued: QueuedRun) -> QueuedRun:
        seen.append(_get("/ready").status_code)
        return queued

    monkeypatch.setitem(worker._CARRY_OUT, "run", carry_out)
    shared.queue.folder.mkdir()
    shared.queue.write(QueuedRun("a-run", "ab" * 16))
    worker._look(shared, link)
    assert seen == [200], "not only when the run, which may take days, is over"
    assert (_get("/ready").status_code, _get("/ready").text) == (200, "ready\n")
    assert "confide_clients_approved 0\n" in _get("/metrics").text


def test_a_server_whose_disk_is_full_says_so_to_the_operator(
    shared: ServerState, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Queue, "add", _full)
    with pytest.raises(ConfideError, match="srv: No space left on device; mend it at the server") as error:
        _propose(shared.home, make_run())
    assert error.value.exit_code == 1


def test_a_status_that_is_damaged_is_named(shared: ServerState, make_run: MakeRun) -> None:
    name = _propose(shared.home, make_run())["name"]
    (shared.queue.folder / f"{name}.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=f"{name}.json: not a run's status; put it back"):
        admin_client.ask(shared.home, "GET", "/status")


def test_an_answer_that_is_not_ours_points_to_the_log(shared: ServerState, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(self: Queue) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Queue, "all", breaks)
    with pytest.raises(ConfideError, match="/status answered HTTP 500, not JSON; the server's log says why"):
        admin_client.ask(shared.home, "GET", "/status")


def test_who_finds_no_server_is_told_how_to_start_this_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **settings: client(**settings, transport=httpx.MockTransport(nobody)))
    with pytest.raises(ConfideError, match=f"`confide server start --home {home.folder}` runs one"):
        admin_client.ask(home, "GET", "/status")


@pytest.mark.parametrize("place", ["registry.json", "kit-mary.json"])
def test_a_full_disk_while_approving_is_one_line_that_says_what_holds(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    request = JoinRequest("mary", "node key", "ab" * 32, "ab" * 64)
    path = home.folder / "request.json"
    path.write_text(write_json(request), encoding="utf-8")
    monkeypatch.setattr(os, "fsync", lambda descriptor: place in os.readlink(f"/proc/self/fd/{descriptor}") and _full())
    monkeypatch.setattr("confide.common.protocol.enrolment.read_request", lambda path: request)
    approve = "server", "approve", path, "--fingerprint", request.fingerprint(), "--home", home.folder
    assert _call(monkeypatch, *approve) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"{home.folder / place}: No space left on device; " in line
    assert ("nothing has changed" in line) == (place == "registry.json")
    assert ("mary" in home.registry.approved()) == (place == "kit-mary.json")
    assert not list(home.folder.glob(".*.tmp")), "who tries again must not fill the disk"


def test_a_full_disk_while_revoking_is_one_line(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home.registry.approve(JoinRequest("mary", "node key", "ab" * 32, "ab" * 64))
    monkeypatch.setattr(os, "fsync", _full)
    assert _call(monkeypatch, "server", "revoke", "mary", "--home", home.folder) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "registry.json: No space left on device; nothing has changed" in line
    assert set(Registry(home.folder / "registry.json").approved()) == {"mary"}


def test_another_user_s_folder_is_told_from_one_that_is_none(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so that the refusal is planted."""

    def refused(path: Path, *rest: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with pytest.raises(InputError, match="is not a server's folder"):
        open_home(home.folder / "server.toml")
    monkeypatch.setattr(Path, "open", refused)
    monkeypatch.setattr(Path, "is_file", refused)  # as Python 3.13 and older have it
    with pytest.raises(InputError, match="srv: Permission denied; be the user that"):
        open_home(home.folder)
