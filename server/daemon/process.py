"""The server as one process: the public port, the admin port, and a thread that carries out runs, one at a time."""

import asyncio
import logging
import os
import shlex
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import uvicorn
from sqlalchemy.exc import DBAPIError

from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError, InputError, PolicyError
from confide.server.daemon.admin import admin_app
from confide.server.daemon.rehearsal import rehearse
from confide.server.daemon.run import carry_out
from confide.server.fleet.client_limits import Clients
from confide.server.fleet.connection_limits import Connection, Door, most_connections
from confide.server.fleet.flower_app import fleet_app
from confide.server.fleet.public_port import FleetGate, FleetServer, Turn
from confide.server.fleet.superlink import Link
from confide.server.home.home import Home
from confide.server.home.queue import Queue, QueuedRun
from confide.server.home.registry import Member

Listening = tuple[uvicorn.Server, socket.socket]
_CARRY_OUT = {"run": carry_out, "rehearsal": rehearse}
log = logging.getLogger("confide")
_LOOK_SECONDS = 1.0  # at the registry, while no run is going on
_RETRY_SECONDS = 5.0  # after an error outside a run, as of a disk that refuses even a run's status


@dataclass
class Desk:
    """What the worker thread and the admin port share.

    Attributes:
        home, queue: on disk.
        link: to Flower's state; None until the server has started.
        stopping: name of the run that an operator wants to stop; the round that is open ends first.
        going: ends when the server does.
        admitted: who was approved when Flower was last told, by name, and by the node that came of it; None: not yet.
        admitting: held from reading the registry to telling Flower, so that the newest is told last.
        troubles: what is wrong now, by what it is about, as it was logged.
    """

    home: Home
    queue: Queue
    link: Link | None = None
    stopping: str | None = None
    going: bool = True
    admitted: tuple[dict[str, Member], dict[int, Member]] | None = None
    admitting: threading.Lock = field(default_factory=threading.Lock)
    troubles: dict[str, str] = field(default_factory=dict)

    def is_over(self, name: str) -> bool:
        """Asked between rounds: whether to stop. Who was revoked meanwhile is shut out here."""
        self.nodes()
        return self.stopping == name or not self.going

    def nodes(self) -> dict[int, str]:
        """Name by node id of the approved institutions, as Flower knows them from now on."""
        return {node: member.institution for node, member in self.members().items()}

    def members(self) -> dict[int, Member]:
        """The approved institutions by node id, as Flower knows them from now on."""
        if self.link is None:
            return {}
        with self.admitting:
            approved = self._approved()
            if self.admitted is None or approved != self.admitted[0]:  # asked every second, for months
                nodes = self.link.admit({name: member.node_key.encode() for name, member in approved.items()})
                self.admitted = (approved, {node: approved[name] for node, name in nodes.items()})
            return self.admitted[1]

    def members_of(self, run: RunConfig) -> dict[int, Member]:
        """The approved institutions that a run names; all of them where it names none."""
        named = run.study.institutions
        return {node: one for node, one in self.members().items() if not named or one.institution in named}

    def _approved(self) -> dict[str, Member]:
        """By the registry; by what it said last while it cannot be read, as when a backup is copied over it."""
        try:
            approved = self.home.registry.approved()
        except (InputError, OSError) as error:
            if self.admitted is None:
                raise
            self.complain("registry", error)
            return self.admitted[0]
        self.troubles.pop("registry", None)
        return approved

    def complain(self, about: str, error: Exception) -> None:
        """Log an error with where it came from; the same one no second time before that was well again."""
        said = type(error).__name__  # another library's text could quote what a client sent
        if isinstance(error, (ConfideError, OSError)):
            said = str(error)
        elif isinstance(error, DBAPIError):
            said = _of_the_disk(error)
        if self.troubles.get(about) != said:
            self.troubles[about] = said
            log.error("%s; it is tried again", said, exc_info=error)


def serve(home: Home, announce: Callable[[int, int], None]) -> None:
    """Serve until SIGTERM or SIGINT. A run that is going on is resumed at the next start.

    Args:
        home: the server's folder.
        announce: is told the public and the admin port, once they listen.

    Raises:
        InputError: a port is taken.
    """
    settings = home.config.server
    public = Door(_bind(settings.host, settings.port), most_connections())
    admin = _bind("127.0.0.1", settings.admin_port)
    os.environ["FLWR_HOME"] = str(home.folder / "flwr")
    # Nothing in link.db outlives a process: the registry has the nodes, the checkpoint the run. A new one cannot be
    # damaged, and holds no lease of a client whose connection ended with the last process.
    for name in ("link.db", "link.db-wal", "link.db-shm"):
        (home.folder / name).unlink(missing_ok=True)
    try:
        app, turn, clients = fleet_app(home.folder / "link.db", settings.port), Turn(), Clients()
    except DBAPIError as error:
        raise ConfideError(f"{home.folder}: {_of_the_disk(error)}; mend it and start again") from None
    desk = Desk(home, Queue(home.folder / "queue"))
    keys = home.folder / "keys"
    # Without a limit the shutdown would wait for idle TLS clients to say goodbye.
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
    desk_server = uvicorn.Server(uvicorn.Config(admin_app(desk), **common))
    worker = threading.Thread(target=_work, args=(desk, lambda: Link(app, turn, clients), fleet), daemon=True)
    worker.start()
    announce(public.getsockname()[1], admin.getsockname()[1])
    try:
        asyncio.run(_both(desk, (fleet, public), (desk_server, admin)))
    finally:
        desk.going = False
        worker.join(timeout=5)


async def _both(desk: Desk, one: Listening, other: Listening) -> None:
    """Both servers until one of them ends; a signal ends both."""

    async def run(server: uvicorn.Server, listening: socket.socket, other: uvicorn.Server) -> None:
        await server.serve(sockets=[listening])
        desk.going = False  # before the loop closes: the worker must know why nobody answers any more
        other.should_exit = True

    await asyncio.gather(run(*one, other[0]), run(*other, one[0]))


def _bind(host: str, port: int) -> socket.socket:
    """Listen before anybody is told: a port that is taken is an error here and not a race later."""
    try:
        both = host == "::" and socket.has_dualstack_ipv6()  # all addresses, of both kinds
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise InputError(f"cannot listen on {host}:{port}: {error.strerror}; is a server running already?") from None


def _work(desk: Desk, make_link: Callable[[], Link], fleet: uvicorn.Server) -> None:
    """Carry out runs, the interrupted one first, until the server ends."""
    pause = threading.Event()
    while desk.going and not fleet.started:
        pause.wait(0.05)
    desk.link = link = make_link()
    while desk.going:
        try:
            _look(desk, link)
        except Exception as error:  # noqa: BLE001 - this thread must live; a run that stays "running" is resumed
            desk.complain("worker", error)
            pause.wait(_RETRY_SECONDS)


def _look(desk: Desk, link: Link) -> None:
    """Carry out the next run, if there is one; then wait for another."""
    desk.nodes()
    desk.queue.changed.clear()
    if queued := desk.queue.next():
        _carry_out(desk, link, queued)
    desk.troubles.pop("worker", None)
    while desk.going and not desk.queue.changed.wait(_LOOK_SECONDS):
        desk.nodes()


def _carry_out(desk: Desk, link: Link, queued: QueuedRun) -> None:
    queued = desk.queue.change(replace(queued, status="running"), ["queued", "running"])
    if queued.status != "running":
        return  # an operator was faster
    desk.troubles.pop("worker", None)  # what kept it from this run is over
    log.info("run %s begins, or goes on", queued.name)
    try:
        ended = _CARRY_OUT[queued.kind](desk, link, queued)
        if ended.status == "stopped" and desk.stopping != queued.name:
            ended = replace(queued, status="queued")  # an operator has resumed it before it had stopped
    except PolicyError as error:
        ended = replace(queued, status="refused", reason=str(error))
    except ConfideError as error:
        ended = replace(queued, status="stopped", reason=str(error))
    except (OSError, DBAPIError) as error:
        reason = f"{desk.home.folder}: {_of_the_disk(error)}; mend it, then `{_resume(desk, queued)}`"
        ended = replace(queued, status="stopped", reason=reason)
    except Exception:
        log.exception("run %s failed", queued.name)
        ended = replace(queued, status="failed", reason="an error of the server; its log says which")
    if desk.going:  # or it goes on at the next start, if only to give the adapter out
        ended = desk.queue.change(ended, ["running"])
        log.info("run %s: %s %s", ended.name, ended.status, ended.reason)
    desk.stopping = None


def _of_the_disk(error: OSError | DBAPIError) -> str:
    """What is wrong, in a text of the system's or of SQLite's: these are fixed, and quote nothing."""
    return str(error.strerror) if isinstance(error, OSError) else f"link.db: {error.orig}"


def _resume(desk: Desk, queued: QueuedRun) -> str:
    """The command as it can be typed wherever the operator is."""
    return f"confide server resume {queued.name} --home {shlex.quote(str(desk.home.folder.absolute()))}"
