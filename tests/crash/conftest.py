"""What the crash tests share."""

import tempfile
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that it wrote, so no disk is needed."""
    memory = Path("/dev/shm")  # noqa: S108 - `tempfile` makes folders of its own in it
    if memory.is_dir():
        monkeypatch.setattr(tempfile, "tempdir", str(memory))
