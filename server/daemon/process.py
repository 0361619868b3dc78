"""The server process: the public port, the admin port, and a thread that carries out runs one at a time."""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import uvicorn
from sqlalchemy.exc import DBAPIError
from starlette.routing import BaseRoute

from confide.common.errors import ConfideError, InputError
from confide.common.folders import held_alone
from confide.server.daemon.admin import admin_app
from confide.server.daemon.server_state import ServerState, disk_reason
from confide.server.daemon.worker import work
from confide.server.fleet.client_limits import Clients
from confide.server.fleet.connection_limits import Connection, LimitedListener, most_connections
from confide.server.fleet.flower_app import fleet_app
from confide.server.fleet.public_port import DatabaseTurn, FleetGate, FleetServer, PortServer
from confide.server.fleet.self_test import require_flower
from confide.server.fleet.superlink import FlowerState
from confide.server.home.home import Home
from confide.server.home.queue import Queue
from confide.server.results.tracking import require_tracker

Listening = tuple[uvicorn.Server, socket.socket]
log = logging.getLogger("confide")
_WORKER_SECONDS = 2.0  # for the worker to end by itself, before its children are killed
_LAST_SECONDS = 5.0  # for it to end then


def serve(
    home: Home,
    announce: Callable[[int, int], None],
    more: Callable[[ServerState], Sequence[BaseRoute]] = lambda shared: (),
) -> None:
    """Serve until SIGTERM or SIGINT. The next start resumes a run that was going on.

    When this returns, the worker and its children have ended. A second signal ends the process at once.

    Args:
        home: the server's folder.
        announce: receives the public and the admin port once they listen.
        more: gives further routes of the admin port.

    Raises:
        InputError: another process serves this folder, a port is taken, or what `tracking` needs is not installed.
        ConfideError: the installed Flower does not do what this server needs, or its application does not start.
    """
    home.runs.mkdir(mode=0o700, exist_ok=True)
    taken = f"{home.folder}: another `confide server start` serves it; stop that one first"
    # Two servers would carry out one run twice, and each institution would be charged twice for a round. The registry
    # locks the home itself for each change, so the lock is on a folder in it.
    with held_alone(home.runs, taken):
        _serve(home, announce, more)


def _serve(
    home: Home, announce: Callable[[int, int], None], more: Callable[[ServerState], Sequence[BaseRoute]]
) -> None:
    settings = home.config.server
    require_tracker(settings.tracking)
    public = LimitedListener(_bind(settings.host, settings.port), most_connections())
    admin = _bind("127.0.0.1", settings.admin_port)
    app, turn, clients = _fresh_fleet_app(home), DatabaseTurn(), Clients()
    shared = ServerState(home, Queue(home.folder / "queue"))
    keys = home.folder / "keys"
    # Without this limit the shutdown would wait for idle TLS clients to close their connections.
    common: Any = {"timeout_keep_alive": 75, "timeout_graceful_shutdown": 1, "log_config": None}
    common |= {"http": Connection, "ws": "none"}
    fleet = FleetServer(
        uvicorn.Config(
            FleetGate(app, turn, clients),
            ssl_certfile=keys / "tls.pem",
            ssl_keyfile=keys / "tls.key",
            **common,
        ),
        clients,
    )
    try:
        fleet.config.load()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{keys}: tls.pem with tls.key cannot be used: {reason}; docs/deployment.md, Keys") from None
    admin_server = PortServer(uvicorn.Config(admin_app(shared, more(shared)), **common))
    worker = threading.Thread(target=work, args=(shared, lambda: FlowerState(app, turn, clients), fleet), daemon=True)
    with _ended_by_signals(shared, [fleet, admin_server]):
        worker.start()
        announce(public.getsockname()[1], admin.getsockname()[1])
        asyncio.run(_both(shared, (fleet, public), (admin_server, admin), lambda: _end(worker, turn)))
    if not (fleet.started and admin_server.started):
        raise ConfideError(f"{home.folder}: a port did not start; the log above says why")


@contextlib.contextmanager
def _ended_by_signals(shared: ServerState, servers: Sequence[uvicorn.Server]) -> Iterator[None]:
    """Let the first SIGTERM or SIGINT end the servers, and the second one the process, even if their end hangs."""
    numbers = (signal.SIGTERM, signal.SIGINT)

    def end(number: int, frame: object) -> None:
        shared.going = False  # before a child that Ctrl-C has ended too can look like a run that fails
        for server in servers:
            server.should_exit = True
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fresh_fleet_app(home: Home) -> Any:
    """Return Flower's application on a new link.db: the registry has the nodes, the checkpoint has the run.

    A new file cannot be damaged, and holds no lease of a client whose connection ended with the last process.
    """
    os.environ["FLWR_HOME"] = str(home.folder / "flwr")
    for name in ("link.db", "link.db-wal", "link.db-shm"):
        (home.folder / name).unlink(missing_ok=True)
    try:
        require_flower(home.folder)
        return fleet_app(home.folder / "link.db", home.config.server.port)
    except (DBAPIError, OSError) as error:
        raise ConfideError(f"{home.folder}: {disk_reason(error)}; mend it and start again") from None


async def _both(shared: ServerState, one: Listening, other: Listening, end: Callable[[], None]) -> None:
    """Run both servers until one of them ends, and the other with it.

    ``end`` ends the worker while this loop still runs: in a turn that no loop gives any more it would wait for ever.
    """

    async def run(server: uvicorn.Server, listening: socket.socket, other: uvicorn.Server) -> None:
        await server.serve(sockets=[listening])
        shared.going = False  # so that the worker knows why no client answers any more
        other.should_exit = True

    try:
        await asyncio.gather(run(*one, other[0]), run(*other, one[0]))
    finally:
        shared.going = False
        await asyncio.to_thread(end)


def _end(worker: threading.Thread, turn: DatabaseTurn) -> None:
    """End the worker, and every child: one that evaluates, or reads a run that the page proposes, may take minutes."""
    turn.close()
    worker.join(_WORKER_SECONDS)
    for child in multiprocessing.active_children():
        child.kill()
    worker.join(_LAST_SECONDS)


def _bind(host: str, port: int) -> socket.socket:
    """Bind the port before it is announced. A taken port fails here, not in a race later."""
    try:
        both = host == "::" and socket.has_dualstack_ipv6()  # all IPv4 and IPv6 addresses
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise InputError(f"cannot listen on {host}:{port}: {error.strerror}; is a server running already?") from None
