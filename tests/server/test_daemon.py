"""The thread that carries out runs: it outlives a disk that is full, and says what to do."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from confide.server import daemon
from confide.server.queue import Queue, QueuedRun

_RUN = QueuedRun("a-run", "ab" * 16, "queued")


@pytest.fixture
def desk(tmp_path: Path) -> Any:
    queue = Queue(tmp_path / "queue")
    queue.folder.mkdir()
    queue.write(_RUN)
    home = SimpleNamespace(folder=tmp_path, registry=SimpleNamespace(approved=dict))
    return daemon.Desk(home, queue)  # type: ignore[arg-type]


def _full(*rest: object) -> QueuedRun:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_run_that_finds_the_disk_full_is_stopped_with_the_remedy(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "carry_out", _full)
    daemon._carry_out(desk, None, _RUN)  # type: ignore[arg-type]
    [ended] = desk.queue.all()
    assert ended.status == "stopped"
    assert "No space left on device; mend it, then `confide server resume a-run`" in ended.reason


def test_the_thread_lives_on_when_not_even_a_status_can_be_written(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write, refusals = Queue.write, [True, True]

    def written(self: Queue, queued: QueuedRun) -> None:
        if refusals:
            refusals.pop()
            _full()
        write(self, queued)

    def carried_out(desk: Any, link: object, queued: QueuedRun) -> QueuedRun:
        desk.going = False
        return QueuedRun(queued.name, queued.lineage, "completed")

    monkeypatch.setattr(Queue, "write", written)
    monkeypatch.setattr(daemon, "carry_out", carried_out)
    monkeypatch.setattr(daemon, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(daemon, "Link", lambda app, turn: SimpleNamespace(admit=lambda keys: {}))
    daemon._work(desk, None, None, SimpleNamespace(started=True))  # type: ignore[arg-type]
    assert [run.status for run in desk.queue.all()] == ["completed"]
