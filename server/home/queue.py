"""Runs of a server, one at a time: a file each in ``queue/``, from the moment they are asked for."""

import json
import secrets
import threading
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from confide.common.config.run import RunConfig
from confide.common.durable import replace_durably
from confide.common.errors import InputError

KINDS = ("run", "rehearsal")
ENDED = ("completed", "stopped", "failed", "refused")


@dataclass(frozen=True)
class QueuedRun:
    """One run, as the server keeps it beside the run directory.

    Attributes:
        name: of its folder.
        lineage: 16 random bytes, hex; kept through every resume.
        status: "queued", "running", or one of `ENDED`.
        reason: in a line, where there is something to say.
        kind: one of `KINDS`.
    """

    name: str
    lineage: str
    status: str = "queued"
    reason: str = ""
    kind: str = "run"


class Queue:
    """The folder of waiting, running and ended runs. A status is on the disk before anything is done under it.

    Only the server's process writes it, and is told by ``changed``: after years there are many files to look at.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.changed, self._changing = folder, threading.Event(), threading.Lock()

    def add(self, run: RunConfig, kind: str = "run") -> QueuedRun:
        """Put a locked run at the end, or a rehearsal of it; `InputError` for what is neither."""
        if kind not in KINDS:
            raise InputError(f"kind = {kind!r} must be one of {list(KINDS)}")
        label = run.study.name if kind == "run" else f"{run.study.name}-{kind}"
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{label}-{secrets.token_hex(2)}"
        queued = QueuedRun(name, secrets.token_hex(16), kind=kind)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_durably(self.folder / f"{name}.run", run.canonical_json().encode())
        self.write(queued)
        return queued

    def write(self, queued: QueuedRun) -> None:
        """Keep a run's status."""
        replace_durably(self.folder / f"{queued.name}.json", json.dumps(asdict(queued)).encode())
        self.changed.set()

    def change(self, queued: QueuedRun, before: Collection[str]) -> QueuedRun:
        """Keep a run's status if it was one of ``before`` until now; how it is then.

        The worker and an operator change it at once: neither may undo what the other was told has been done.
        """
        with self._changing:
            now = self.get(queued.name)
            if now.status not in before:
                return now
            self.write(queued)
            return queued

    def all(self) -> list[QueuedRun]:
        """Every run, oldest first; `InputError` for a file that is not a run's status.

        A run without a status is one that a crash left before it was anything.
        """
        return [_read(path) for path in sorted(self.folder.glob("[!.]*.json"))]

    def get(self, name: str) -> QueuedRun:
        """One run; `InputError` if there is none of that name."""
        path = self.folder / f"{name}.json"
        if Path(name).name != name or name.startswith(".") or not path.is_file():
            raise InputError(f"no run {name!r} here; `confide server status` lists them")
        return _read(path)

    def run_of(self, queued: QueuedRun) -> RunConfig:
        """Its locked run."""
        return RunConfig.model_validate_json((self.folder / f"{queued.name}.run").read_bytes())

    def next(self) -> QueuedRun | None:
        """What is to be carried out now: what a crash interrupted, then what waits longest."""
        waiting = [queued for queued in self.all() if queued.status in ("running", "queued")]
        return min(waiting, key=lambda queued: (queued.status == "queued", queued.name), default=None)


def _read(path: Path) -> QueuedRun:
    try:
        return QueuedRun(**json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        raise InputError(f"{path}: not a run's status; put it back from the backup") from None
