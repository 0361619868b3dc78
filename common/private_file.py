"""Files that a command writes where its user says; most for the user alone, for they quote records."""

from pathlib import Path

from confide.common.durable import replace_durably
from confide.common.errors import InputError


def write_private(path: Path, text: str, option: str) -> None:
    """Write a text that only its owner may read; `InputError` as in `write_public`."""
    _write(path, text, option, 0o600)


def write_public(path: Path, text: str, option: str) -> None:
    """Write a text that others may read.

    Raises:
        InputError: it cannot be written; the message names the option.
    """
    _write(path, text, option, 0o666)


def _write(path: Path, text: str, option: str, mode: int) -> None:
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; name a file in it")
    try:
        replace_durably(path, text.encode(errors="backslashreplace"), mode)
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be written: {error.strerror}; choose another file") from None
