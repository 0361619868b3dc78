"""What a function calls durable is on the disk when it returns: everything was written before the last fsync."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from confide.common import durable
from confide.common.durable import append_durably, replace_durably, write_durably

Synced = list[tuple[int, bytes | list[str]]]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Synced:
    """Every fsync in order: the inode, and what a crash right after it would leave there (content or entries)."""
    calls, real = Synced(), os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        place, seen = Path(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor)
        entries = sorted(os.listdir(descriptor)) if stat.S_ISDIR(seen.st_mode) else place.read_bytes()
        calls.append((seen.st_ino, entries))

    monkeypatch.setattr(durable.os, "fsync", fsync)
    return calls


def _inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_line_is_on_the_disk_when_append_returns(tmp_path: Path, synced: Synced) -> None:
    path = tmp_path / "audit.jsonl"
    for number, content in enumerate((b"one\n", b"one\ntwo\n"), start=1):
        append_durably(path, content.decode().split("\n")[-2])
        assert len(synced) == number
        assert synced[-1] == (_inode(path), content)


def test_a_line_of_which_the_disk_takes_a_part_at_a_time_is_synced_as_a_whole(
    tmp_path: Path, synced: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(durable.os, "write", lambda descriptor, content: real(descriptor, content[:2]))
    append_durably(tmp_path / "audit.jsonl", "a long line")
    assert synced[-1] == (_inode(tmp_path / "audit.jsonl"), b"a long line\n")


def test_a_file_is_on_the_disk_when_write_returns(tmp_path: Path, synced: Synced) -> None:
    write_durably(tmp_path / "file", b"content" * 10_000)
    assert synced[-1] == (_inode(tmp_path / "file"), b"content" * 10_000)


@pytest.mark.parametrize("there", [False, True])
def test_a_replaced_file_has_content_before_name_and_name_before_return(
    tmp_path: Path, synced: Synced, there: bool
) -> None:
    """Without the folder, a power cut brings back the old anchor: one that an old ledger agrees with."""
    path = tmp_path / "anchor.json"
    if there:
        path.write_bytes(b"old")
    replace_durably(path, b"new")
    assert synced == [(_inode(path), b"new"), (_inode(tmp_path), ["anchor.json"])]


@pytest.mark.parametrize("write", [write_durably, replace_durably, append_durably])
def test_an_error_of_the_disk_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, Any], None]
) -> None:
    """The system's own error of a write names none."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as failed:
        write(tmp_path / "file", "line" if write is append_durably else b"line")
    assert failed.value.filename == str(tmp_path / "file")
