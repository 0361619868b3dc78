"""What shall go wrong in a process that a test has forked; it happens here, in Python, and nowhere in the product.

`prepare` also makes every wait of an idle client short, and release ticks too; these
`tests/client/service/test_release_ticks.py` has whole; and it lets the server's child be forked like its parent.
"""

import ctypes
import errno
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

_FULL = "disk-is-full"  # while a file of this name lies in the working folder
_LONGEST_IDLE = 0.5  # seconds between polls of a client that waits for a run
_OF_A_TICK = 0.1  # fifty asks are answered in a tenth of fifty seconds


def prepare(zygote: str, order: dict[str, Any]) -> None:
    """Everything that an order names; see the functions in `_KINDS`."""
    from confide.client.service import link, release_ticks
    from confide.server.daemon import torch_child

    tick_of = release_ticks.tick_of
    link._POLL_IDLE = _LONGEST_IDLE
    release_ticks.tick_of = lambda content, least: _OF_A_TICK * tick_of(content, least)
    torch_child.multiprocessing = _Workshops(zygote)  # type: ignore[assignment]
    for kind, details in order.items():
        _KINDS[kind](details)


class _Workshops:
    """As much of `multiprocessing` as a server's workshop uses: spawning would import torch again."""

    def __init__(self, zygote: str) -> None:
        self._zygote = zygote

    def get_context(self, method: str) -> "_Workshops":
        assert method == "spawn"
        return self

    @staticmethod
    def Pipe() -> Any:
        import multiprocessing

        return multiprocessing.Pipe()

    def Process(self, target: Any, args: tuple[Any, ...], daemon: bool) -> "_Workshop":
        return _Workshop(self._zygote, args)


class _Workshop:
    def __init__(self, zygote: str, args: tuple[Any, ...]) -> None:
        self._zygote, self._pipe, self._settings = zygote, args[0], args[1:]

    def start(self) -> None:
        from support.zygote import ask_for, private

        order = {"workshop": self._settings, "cwd": os.getcwd(), "environment": private(os.environ)}
        self._process = ask_for(self._zygote, order, [self._pipe.fileno()])

    def join(self, timeout: float) -> None:
        self._process.wait(timeout)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _count(hit: int, act: Callable[[], None]) -> Callable[[], None]:
    """Act at the n-th call."""
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        if calls == hit:
            act()

    return call


def _kill_at(details: dict[str, Any]) -> None:
    """kill -9 at a failpoint: ``place``, ``hit``."""
    from confide.common import failpoints

    call = _count(details.get("hit", 1), _die)

    def action(name: str) -> None:
        if name == details["place"]:
            call()

    failpoints.action = action


def _kill_after_event(wanted: dict[str, Any]) -> None:
    """kill -9 of a server as soon as a run has told of an event."""
    from confide.server.results.run_directory import RunDirectory

    record = RunDirectory.record

    def recorded(self: RunDirectory, event: dict[str, Any]) -> None:
        record(self, event)
        if wanted.items() <= event.items():
            _die()

    RunDirectory.record = recorded  # type: ignore[method-assign]


def _kill_while_sending(details: dict[str, Any]) -> None:
    """kill -9 of a client when some objects of its answer are with the server, and some are not."""
    from confide.client.service import link

    push = link.FleetHttpClient.PushObject
    call = _count(details["objects"] + 1, _die)

    def pushed(self: Any, request: Any) -> Any:
        call()
        return push(self, request)

    link.FleetHttpClient.PushObject = pushed


def _clock(seconds: float) -> None:
    """A client's clock that is ahead: what it signs, and what it compares a deadline with."""
    from flwr.supernode import node_auth_http_interceptor as signing

    now, wall = signing.now, time.time
    signing.now = lambda: now() + timedelta(seconds=seconds)
    time.time = lambda: wall() + seconds


def _full_after(details: dict[str, Any]) -> None:
    """ENOSPC in every durable write from a failpoint on, while the working folder says so."""
    from confide.common import durable, failpoints

    reached = list[bool]()

    class Disk:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def fsync(self, descriptor: int) -> None:
            if reached and Path(_FULL).exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)

    def action(name: str) -> None:
        if name == details["place"]:
            reached.append(True)
        elif name == details.get("until"):
            reached.clear()

    failpoints.action = action
    durable.os = Disk()  # type: ignore[assignment]


def _full_ledger(spare_pages: int) -> None:
    """A ledger that SQLite may not let grow by more than some pages."""
    connect = sqlite3.connect

    def connected(path: Any, *rest: Any, **settings: Any) -> sqlite3.Connection:
        database = connect(path, *rest, **settings)
        if str(path).endswith("ledger.db"):
            [pages] = database.execute("PRAGMA page_count").fetchone()
            database.execute(f"PRAGMA max_page_count = {max(pages, 1) + spare_pages}")
        return database

    sqlite3.connect = connected  # type: ignore[assignment]


def can_mount() -> bool:
    """Whether `_small_disk` can be had here: it needs root, and a kernel that lets it."""
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


def _small_disk(folder: str) -> None:
    """A file system of one page in this process' view of a folder."""
    libc = ctypes.CDLL(None, use_errno=True)
    private, new_namespace = 0x44000, 0x20000  # MS_REC | MS_PRIVATE, CLONE_NEWNS
    refused = libc.unshare(new_namespace) or libc.mount(b"none", b"/", None, private, None)
    if refused or libc.mount(b"none", folder.encode(), b"tmpfs", 0, b"size=4096"):
        raise OSError(ctypes.get_errno(), "no small disk can be had")


def _tap(path: str) -> None:
    """Keep every request that a server's gate lets through: a line about each, and the bodies in a file beside.

    Of a message's own object the size is left out: it holds Flower's random ids, whose length differs.
    """
    from confide.server.fleet.public_port import FleetGate

    hand_on = FleetGate._wait_and_hand_on

    async def kept(gate: FleetGate, scope: Any, body: bytes, receive: Any) -> list[Any]:
        with Path(path).open("ab") as lines, Path(f"{path}.bodies").open("ab") as bodies:
            lines.write(json.dumps({"path": scope["path"], **_pushed(scope["path"], body)}).encode() + b"\n")
            bodies.write(body)
        return await hand_on(gate, scope, body, receive)

    FleetGate._wait_and_hand_on = kept  # type: ignore[method-assign]


def _pushed(path: str, body: bytes) -> dict[str, Any]:
    from flwr.proto.message_pb2 import PushObjectRequest

    if not path.endswith("/push-object"):
        return {}
    content = PushObjectRequest.FromString(body).object_content
    kind = content.split(b" ")[0].decode()
    return {"kind": kind, "bytes": 0 if kind == "Message" else len(content)}


def _hostile_server(script: str) -> None:
    """A server that carries out no run, but asks what a script in a file says; see `support.hostile_server`."""
    from support.hostile_server import carry_out_script

    from confide.server.daemon import worker

    worker._CARRY_OUT["run"] = lambda shared, link, queued: carry_out_script(Path(script), shared, link, queued)


_KINDS: dict[str, Callable[[Any], None]] = {
    "kill_at": _kill_at,
    "kill_after_event": _kill_after_event,
    "kill_while_sending": _kill_while_sending,
    "clock": _clock,
    "full_after": _full_after,
    "full_ledger": _full_ledger,
    "small_disk": _small_disk,
    "tap": _tap,
    "hostile_server": _hostile_server,
}
