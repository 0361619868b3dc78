"""The lock that keeps a client alone in its state folder, and the client's status file."""

import contextlib
import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from confide.common.durable import replace_durably
from confide.common.errors import ConfideError, InputError

_LOCK, _STATUS = "client.lock", "status.json"


log = logging.getLogger("confide")


@contextlib.contextmanager
def only_client(state: Path) -> Iterator[None]:
    """Hold a state folder's lock while a client runs on it. The lock ends with the process, even after a kill.

    Two clients would share a node key, and each would end the other's connection.

    Raises:
        ConfideError: another one runs.
        InputError: the state folder is missing, or cannot be written.
    """
    try:
        descriptor = os.open(state / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise InputError(f"{state}: {error.strerror}; `confide client join ADDRESS` makes it") from None
    try:
        if not _taken(descriptor):
            raise ConfideError(
                f"{state} is in use by another `confide client start`, process {_pid(descriptor)}; stop that one first"
            )
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)  # this unlocks


def _taken(descriptor: int) -> bool:
    for _ in range(3):  # `client_pid` holds it for an instant
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(0.1)
    return False


def client_pid(state: Path) -> int | None:
    """Return the process id of the client that runs on a state folder, or None."""
    try:
        descriptor = os.open(state / _LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(descriptor)
    finally:
        os.close(descriptor)
    return None


def _pid(descriptor: int) -> int:
    """Return the process id that the lock's holder wrote; 0 in the instant before it does."""
    return int(os.pread(descriptor, 20, 0) or 0)


class Status:
    """The client's status: on the disk at every change, never sent. A full disk does not stop the client."""

    def __init__(self, state: Path) -> None:
        self._path, self._turn = state / _STATUS, threading.Lock()
        last = read_status(state).get("last_ask")
        self._facts: dict[str, Any] = {"pid": os.getpid(), "since": _now(), "connected": False, "last_ask": last}
        self._write()

    def hear(self, news: Literal["connected", "lost"]) -> None:
        """Take the link's news of the server, which come often."""
        connected = news == "connected"
        with self._turn:  # the heartbeat's thread tells it too
            if self._facts["connected"] != connected:
                self._facts["connected"] = connected
                self._write()

    def asked(self, what: str, record: dict[str, Any]) -> None:
        """Note an ask. Both arguments come from the server and are not checked yet."""
        study, number = record.get("study"), record.get("round")
        ask = {
            "what": what[:40],
            "study": study[:64] if isinstance(study, str) else None,
            "round": number if isinstance(number, int) else None,
            "time": _now(),
        }
        with self._turn:
            self._facts["last_ask"] = ask
            self._write()

    def refused(self, reason: str) -> None:
        """Note that the last ask was refused; the reason stays here."""
        with self._turn:
            self._facts["last_ask"] = {**self._facts["last_ask"], "refused": reason}
            self._write()

    def _write(self) -> None:
        try:
            replace_durably(self._path, json.dumps(self._facts).encode(), 0o600)
        except OSError as error:
            log.warning("%s: cannot be written: %s", self._path, error.strerror)


def read_status(state: Path) -> dict[str, Any]:
    """Return the status of the last client; empty if none left one."""
    try:
        return dict(json.loads((state / _STATUS).read_bytes()))
    except (OSError, ValueError, TypeError):
        return {}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
