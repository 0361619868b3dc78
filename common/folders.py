"""Folders that a command is to make, or that a process holds alone."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confide.common.errors import InputError


def require_new(path: Path) -> None:
    """Raise `InputError` for a folder that exists and holds something."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"--out {path} must be new or empty; choose another folder")


@contextmanager
def held_alone(folder: Path, otherwise: str) -> Iterator[None]:
    """Hold an exclusive lock on a folder within the block; it ends with the process at the latest.

    Raises:
        InputError: another process holds it; ``otherwise`` is the message.
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(otherwise) from None
    else:
        yield
    finally:
        os.close(descriptor)  # which unlocks
