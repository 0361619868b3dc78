"""The queue of runs, which run one at a time. Each has files in ``queue/`` from the moment it is proposed."""

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
        name: the name of its folder.
        lineage: 16 random bytes as hex, the same through every resume.
        status: "queued", "running", or one of `ENDED`.
        reason: the reason of the status in one line; may be empty.
        kind: one of `KINDS`.
    """

    name: str
    lineage: str
    status: str = "queued"
    reason: str = ""
    kind: str = "run"


class Queue:
    """The folder of waiting, running and ended runs. A status is on the disk before the server acts on it.

    Only the server's process writes it. ``changed`` signals a write, because scanning the files of years is slow.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.changed, self._changing = folder, threading.Event(), threading.Lock()

    def add(self, run: RunConfig, kind: str = "run") -> QueuedRun:
        """Append a locked run or a rehearsal of it; `InputError` for any other kind."""
        if kind not in KINDS:
            raise InputError(f"kind = {kind!r} must be one of {list(KINDS)}")
        label = run.study.name if kind == "run" else f"{run.study.name}-{kind}"
        # In UTC: runs are taken in the order of their names, which must not go back when summer time ends.
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{label}-{secrets.token_hex(2)}"
        queued = QueuedRun(name, secrets.token_hex(16), kind=kind)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_durably(self.folder / f"{name}.run", run.canonical_json().encode())
        self.write(queued)
        return queued

    def write(self, queued: QueuedRun) -> None:
        """Save a run's status."""
        replace_durably(self.folder / f"{queued.name}.json", json.dumps(asdict(queued)).encode())
        self.changed.set()

    def change(self, queued: QueuedRun, before: Collection[str]) -> QueuedRun:
        """Save a run's status if its present one is among ``before``. Return the status that then holds.

        The worker and an operator may change it at the same time. Neither may undo a change confirmed to the other.
        """
        with self._changing:
            now = self.get(queued.name)
            if now.status not in before:
                return now
            self.write(queued)
            return queued

    def all(self) -> list[QueuedRun]:
        """Return every run, oldest first; `InputError` for a file that is not a run's status.

        A run file without a status is left out: a crash interrupted its creation.
        """
        return [_read(path) for path in sorted(self.folder.glob("[!.]*.json"))]

    def get(self, name: str) -> QueuedRun:
        """Return one run; `InputError` if there is none of that name."""
        path = self.folder / f"{name}.json"
        if Path(name).name != name or name.startswith(".") or not path.is_file():
            raise InputError(f"no run {name!r} here; `confide server status` lists them")
        return _read(path)

    def run_of(self, queued: QueuedRun) -> RunConfig:
        """Return the locked run of an entry."""
        return RunConfig.model_validate_json((self.folder / f"{queued.name}.run").read_bytes())

    def next(self) -> QueuedRun | None:
        """Return the next run to carry out: one that a crash interrupted, else the one that has waited longest."""
        waiting = [queued for queued in self.all() if queued.status in ("running", "queued")]
        return min(waiting, key=lambda queued: (queued.status == "queued", queued.name), default=None)


def _read(path: Path) -> QueuedRun:
    try:
        return QueuedRun(**json.loads(path.read_bytes()))
    except (ValueError, TypeError):
        raise InputError(f"{path}: not a run's status; put it back from the backup") from None
