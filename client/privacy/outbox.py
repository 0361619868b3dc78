"""Answers on disk: a sealed file is the answer, byte for byte, each time it is sent."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from confide.common.durable import sync_folder, write_durably
from confide.common.errors import ConfideError
from confide.common.failpoints import failpoint


class Outbox(Protocol):
    """A place in which answers wait until the server has them."""

    def put(self, name: str, content: bytes) -> None:
        """Keep an answer. All of it is stored when this returns."""

    def get(self, name: str) -> bytes | None:
        """Return an answer, or None."""

    def names(self) -> list[str]:
        """Return the names of all answers."""

    def delete(self, name: str) -> None:
        """Forget an answer."""

    def busy(self) -> AbstractContextManager[None]:
        """Hold while an answer is here that has no SEAL yet."""

    def idle(self) -> AbstractContextManager[None]:
        """Hold while no process is `busy`."""


class FileOutbox:
    """An outbox in a folder that only its owner may read.

    Guarantee: `put` returns when the disk has the whole file under its name; a crash leaves none or a temporary one.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder, self._lock = folder, folder / ".lock"

    def put(self, name: str, content: bytes) -> None:
        """Write a temporary file, fsync it, rename it, fsync the folder."""
        temporary = self._folder / f".{name}.tmp"
        try:
            write_durably(temporary, content, 0o600)
            failpoint("outbox-written")
            temporary.rename(self._folder / name)
            failpoint("outbox-renamed")
            sync_folder(self._folder)
        except OSError as error:
            raise ConfideError(
                f"{self._folder / name}: cannot be written: {error.strerror}; nothing was sent"
            ) from None

    def get(self, name: str) -> bytes | None:
        """Return the file's content, or None."""
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None

    def names(self) -> list[str]:
        """Return the names of finished files."""
        return sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        (self._folder / name).unlink(missing_ok=True)

    def busy(self) -> AbstractContextManager[None]:
        """Hold a shared lock: several answers may be on their way to a SEAL."""
        return self._locked(fcntl.LOCK_SH)

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Hold an exclusive lock: an answer without a SEAL now never gets one. Delete half-written files of a crash."""
        with self._locked(fcntl.LOCK_EX):
            for leftover in self._folder.glob(".*.tmp"):
                leftover.unlink()
            yield

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        descriptor = os.open(self._lock, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)  # this unlocks
