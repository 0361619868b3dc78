"""Files that a command writes for its user alone, for they quote records."""

from pathlib import Path

from confide.common.durable import replace_durably
from confide.common.errors import InputError


def write_private(path: Path, text: str, option: str) -> None:
    """Write a text that only its owner may read.

    Raises:
        InputError: it cannot be written; the message names the option.
    """
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; name a file in it")
    try:
        replace_durably(path, text.encode(errors="backslashreplace"), 0o600)
    except OSError as error:
        raise InputError(f"{option} {path}: cannot be written: {error.strerror}; choose another file") from None
