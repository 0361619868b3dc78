"""The end of a server, by a signal or because it does not start; and two servers on one folder."""

import asyncio
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError, InputError
from confide.common.folders import held_alone
from confide.server.daemon import process, torch_child, worker
from confide.server.fleet.client_limits import Clients
from confide.server.fleet.public_port import DatabaseTurn, FleetGate, FleetServer, PortServer, ServerEndsError
from confide.server.home.home import Home, init_home, open_home
from confide.server.home.queue import Queue, QueuedRun

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Those of before, whatever a test leaves."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The folder of a server on ports that are free, reached from this machine alone."""
    made = init_home(tmp_path / "srv", ["127.0.0.1"], 0)
    settings = made.folder / "server.toml"
    text = settings.read_text(encoding="utf-8").replace('# host = "0.0.0.0"', 'host = "127.0.0.1"')
    settings.write_text(text.replace("# admin_port = 8444", "admin_port = 0"), encoding="utf-8")
    return open_home(made.folder)


async def _app(scope: Any, receive: Any, send: Any) -> None:
    while scope["type"] == "lifespan" and (message := await receive()):
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _broken(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no"})


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_both_ports_the_worker_in_its_round_and_its_child(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the process goes on to its exit code: the signal does not kill it."""
    monkeypatch.setattr(process, "_WORKER_SECONDS", 0.3)
    turn, clients, ended = DatabaseTurn(), Clients(), list[str]()
    shared: Any = SimpleNamespace(going=True)
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), daemon=True)

    def works() -> None:
        child.start()
        handlers.append(signal.getsignal(number))
        os.kill(os.getpid(), number)
        try:
            while True:
                with turn.from_thread():
                    time.sleep(0.001)
        except ServerEndsError:
            ended.append("round")
        child.join()  # as one waits that has asked its child to evaluate
        ended.append("child")

    settings: Any = {"log_config": None, "timeout_graceful_shutdown": 1}
    servers = [FleetServer(uvicorn.Config(FleetGate(_app, turn, clients), **settings), clients)]
    servers += [PortServer(uvicorn.Config(_app, **settings))]  # type: ignore[list-item]
    one, other = [(server, socket.create_server(("127.0.0.1", 0))) for server in servers]
    thread = threading.Thread(target=lambda: [time.sleep(0.3), works()], daemon=True)
    with process._ended_by_signals(shared, servers):
        handlers = [signal.getsignal(number)]
        thread.start()
        asyncio.run(process._both(shared, one, other, lambda: process._end(thread, turn)))
    assert handlers[0] is handlers[1], "uvicorn's own would not tell the worker, nor heed a second signal"
    assert ended == ["round", "child"]
    assert not thread.is_alive()
    assert child.exitcode == -signal.SIGKILL
    assert not shared.going


@pytest.mark.parametrize(("first", "second"), [SIGNALS, SIGNALS[::-1]])
def test_a_first_signal_ends_the_server_and_a_second_one_the_process_at_once(first: int, second: int) -> None:
    shared, server = SimpleNamespace(going=True), SimpleNamespace(should_exit=False)
    before = signal.getsignal(signal.SIGINT)  # a shell lets what it begins in the background ignore it
    with process._ended_by_signals(shared, [server]):  # type: ignore[arg-type,list-item]
        signal.raise_signal(first)
        assert (shared.going, server.should_exit) == (False, True)
        assert signal.getsignal(second) == signal.getsignal(first) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_at_a_terminal_does_not_end_the_child(make_run: Any) -> None:
    """It reaches every process of the terminal, and the server would say that there is too little memory."""
    ours, theirs = multiprocessing.Pipe()
    ours.close()
    run: RunConfig = make_run()
    torch_child._work(theirs, run.model_dump_json(), ".")
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_run_whose_server_ends_is_no_failed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def ends(*rest: object) -> QueuedRun:
        shared.going = False
        raise ServerEndsError("the server ends")

    shared: Any = SimpleNamespace(going=True, troubles={}, queue=Queue(tmp_path), stopping=None)
    shared.queue.write(QueuedRun("a-run", "ab" * 16))
    monkeypatch.setitem(worker._CARRY_OUT, "run", ends)
    worker._carry_out(shared, SimpleNamespace(), shared.queue.get("a-run"))  # type: ignore[arg-type]
    assert shared.queue.get("a-run").status == "running", "the next start continues it"
    assert caplog.records == []


def test_one_server_at_a_time_serves_a_folder(home: Home) -> None:
    """A second one would ask each institution for each round again."""
    database = home.folder / "link.db"
    database.write_bytes(b"that of the first")
    with held_alone(home.runs, "taken"):
        with pytest.raises(InputError, match="srv: another `confide server start` serves it; stop that one first"):
            process.serve(home, lambda public, admin: pytest.fail("it listens"))
        home.registry.approved()
    assert database.read_bytes() == b"that of the first"
    with held_alone(home.runs, "still taken"):
        pass


def test_a_public_port_that_does_not_start_is_an_error(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor would take exit code 0 for an end that somebody wanted."""
    monkeypatch.setattr(process, "fleet_app", lambda database, port: _broken)
    monkeypatch.setattr(process, "require_flower", lambda folder: None)
    monkeypatch.setattr(process, "FlowerState", lambda *rest: pytest.fail("the worker looks for Flower's state"))
    monkeypatch.setenv("FLWR_HOME", "set by serve")
    with pytest.raises(ConfideError, match="srv: a port did not start; the log above says why"):
        process.serve(home, lambda public, admin: None)


def test_an_admin_port_that_does_not_start_is_an_error(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*rest: object) -> None:
        raise OSError("not asked for here")

    monkeypatch.setattr(process, "fleet_app", lambda database, port: _app)
    monkeypatch.setattr(process, "admin_app", lambda *rest: _broken)
    monkeypatch.setattr(process, "require_flower", lambda folder: None)
    monkeypatch.setattr(process, "FlowerState", unreachable)
    monkeypatch.setattr(worker, "_RETRY_SECONDS", 0.01)
    monkeypatch.setenv("FLWR_HOME", "set by serve")
    with pytest.raises(ConfideError, match="srv: a port did not start; the log above says why"):
        process.serve(home, lambda public, admin: None)


def test_a_worker_that_does_not_reach_flower_s_state_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the server would say "starting" for ever."""
    monkeypatch.setattr(worker, "_RETRY_SECONDS", 0.01)
    shared: Any = SimpleNamespace(going=True, link=None, troubles={}, complain=lambda *rest: complaints.append(rest))
    complaints, answers = list[Any](), [OSError("locked"), "a link"]

    def make_link() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        shared.going = False
        return answer

    monkeypatch.setattr(worker, "_look", lambda shared, link: None)
    worker.work(shared, make_link, SimpleNamespace(started=True))  # type: ignore[arg-type]
    assert (shared.link, len(complaints)) == ("a link", 1)
