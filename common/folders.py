"""Folders that a command is to make."""

from pathlib import Path

from confide.common.errors import InputError


def require_new(path: Path) -> None:
    """Raise `InputError` for a folder that exists and holds something."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"--out {path} must be new or empty; choose another folder")
