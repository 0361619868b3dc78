"""Answers on disk: whole or not at all, for their owner only, never swept away on their way to a SEAL."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.ledgers import Crash

from confide.client.privacy.outbox import FileOutbox, Outbox
from confide.common import durable, failpoints
from confide.common.errors import ConfideError
from confide.simulations.sites.simulated_sites import MemoryOutbox


@pytest.fixture(params=["file", "memory"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Outbox:
    return FileOutbox(tmp_path / "outbox") if request.param == "file" else MemoryOutbox()


@pytest.fixture
def files(tmp_path: Path) -> FileOutbox:
    return FileOutbox(tmp_path / "outbox")


def test_a_folder_is_made_with_the_folders_above_it(tmp_path: Path) -> None:
    for _ in range(2):
        FileOutbox(tmp_path / "state" / "outbox").put("a.answer", b"1")
    assert stat.S_IMODE((tmp_path / "state" / "outbox").stat().st_mode) == 0o700


def test_what_was_put_is_there_byte_for_byte(outbox: Outbox) -> None:
    content = os.urandom(10_000)
    outbox.put("a.answer", content)
    assert (outbox.get("a.answer"), outbox.names()) == (content, ["a.answer"])


def test_what_was_not_put_is_none(outbox: Outbox) -> None:
    assert (outbox.get("a.answer"), outbox.names()) == (None, [])


def test_what_was_deleted_is_gone(outbox: Outbox) -> None:
    outbox.put("a.answer", b"1")
    for _ in range(2):
        outbox.delete("a.answer")
    assert (outbox.get("a.answer"), outbox.names()) == (None, [])


def test_busy_and_idle_take_turns_in_one_process(outbox: Outbox) -> None:
    for _ in range(2):
        with outbox.busy(), outbox.busy():
            outbox.put("a.answer", b"1")
        with outbox.idle():
            assert outbox.names() == ["a.answer"]


def test_only_its_owner_may_read_it(files: FileOutbox, tmp_path: Path) -> None:
    with files.busy():
        files.put("a.answer", b"1")
    assert stat.S_IMODE((tmp_path / "outbox").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "outbox").iterdir()} == {0o600}


def test_another_process_finds_it(files: FileOutbox, tmp_path: Path) -> None:
    files.put("a.answer", b"1")
    again = FileOutbox(tmp_path / "outbox")
    assert (again.get("a.answer"), again.names()) == (b"1", ["a.answer"])


@pytest.mark.parametrize("where", ["outbox-written", "outbox-renamed"])
def test_a_crash_leaves_the_whole_file_or_a_temporary_one(
    files: FileOutbox, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    crash_at(where, monkeypatch)
    with pytest.raises(Crash):
        files.put("a.answer", b"whole")
    assert files.names() == (["a.answer"] if where == "outbox-renamed" else [])
    assert files.get("a.answer") in (None, b"whole")
    with files.idle():
        assert [file.name for file in files._folder.glob(".*.tmp")] == []


def crash_at(where: str, patch: pytest.MonkeyPatch) -> None:
    def action(name: str) -> None:
        if name == where:
            raise Crash

    patch.setattr(failpoints, "action", action)


def test_the_disk_has_a_file_before_its_name_and_the_folder_before_put_returns(
    files: FileOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync of the file, rename, fsync of the folder."""
    order: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted(descriptor: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(durable.os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", lambda self, to: (order.append("rename"), rename(self, to))[1])
    files.put("a.answer", b"1")
    assert order == ["file", "rename", "folder"]


def test_idle_waits_for_whoever_is_busy(files: FileOutbox, tmp_path: Path) -> None:
    """Else a start would delete another process's answer between its file and its SEAL."""
    idle = threading.Event()

    def sweep() -> None:
        with FileOutbox(tmp_path / "outbox").idle():
            idle.set()

    with files.busy():
        thread = threading.Thread(target=sweep)
        thread.start()
        assert not idle.wait(0.2)
    thread.join(10)
    assert idle.is_set()


def test_a_full_disk_is_an_error_of_ours_and_nothing_has_the_name(tmp_path: Path) -> None:
    program = """
import resource, signal, sys
from pathlib import Path
from confide.client.privacy.outbox import FileOutbox
from confide.common.errors import ConfideError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
outbox = FileOutbox(Path(sys.argv[1]))
try:
    outbox.put("a.answer", bytes(5000))
except ConfideError as error:
    print(error, outbox.names())
"""
    command = [sys.executable, "-c", program, str(tmp_path / "outbox")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "cannot be written: File too large; nothing was sent []" in done.stdout, done.stderr


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(files: FileOutbox) -> None:
    files._folder.rmdir()
    with pytest.raises(ConfideError, match="nothing was sent"):
        files.put("a.answer", b"1")
