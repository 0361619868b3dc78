"""Files that are on the disk when a function returns."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_durably(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file and wait until the disk has it; ``mode`` 0o600 keeps it to its owner."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with _naming(path), open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace a file at once: a reader, or a crash, finds the old content or the new one and nothing else."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")  # of this call alone
    with _naming(path):
        try:
            write_durably(temporary, content, mode)
            temporary.rename(path)
        except OSError:
            with suppress(OSError):  # a caller that retries must not fill the disk
                temporary.unlink()
            raise
    sync_folder(path.parent)


def append_durably(path: Path, line: str, mode: int = 0o600) -> None:
    """Append one line and wait until the disk has it; by default only its owner may read the file.

    A line that a crash cut short stays alone: the next one begins on a line of its own.
    """
    with _naming(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, mode)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            left = b"\n" * torn + line.encode() + b"\n"
            while left:  # a disk that is nearly full writes a part, and reports the error at the next call
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def whole_or_not_at_all(path: Path) -> Iterator[Path]:
    """Remove a half-written line after a full disk, so that it never ends up in the middle of the file."""
    path.touch()
    size = path.stat().st_size
    try:
        yield path
    except OSError:
        os.truncate(path, size)
        raise


def cut_torn_line(path: Path) -> None:
    """Remove the torn last line that a power cut or a full disk left. Nobody ever acted on it."""
    if path.is_file():
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name into an error: that of a write has none, and a temporary file's name says nothing."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Wait until the disk has a folder's entries."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
