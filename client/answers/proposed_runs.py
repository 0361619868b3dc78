"""Runs that were offered or approved: kept as files, for whoever is to approve them, and for `client doctor`."""

import contextlib
import hashlib
import os
from pathlib import Path

from confide.client.config import DatasetSection
from confide.client.privacy.account import Account
from confide.common.config.run import RunConfig
from confide.common.durable import replace_durably
from confide.common.errors import InputError

_KEPT = 20  # the newest; a server must not fill the disk
_KEPT_MARKS = 200  # empty files, and only for runs that were joined: no proposal of a server pushes one out
_JOINED = ".joined"


def keep_offer(folder: Path, run: RunConfig) -> None:
    """Keep a locked run under its hash, as the newest."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{run.sha256()}.json"
    try:
        os.utime(path)
    except FileNotFoundError:  # also if another process makes room just now
        replace_durably(path, run.canonical_json().encode(), 0o600)
    for old in _newest_first(folder, "*.json")[_KEPT:]:
        old.unlink(missing_ok=True)


def read_offers(folder: Path, study: str | None = None) -> list[RunConfig]:
    """The runs that were offered, newest first; of one study, if it is named."""
    runs = []
    for path in _newest_first(folder, "*.json"):
        try:
            run = RunConfig.model_validate_json(path.read_bytes())
        except FileNotFoundError:  # another process made room for a newer one
            continue
        except (OSError, ValueError):
            raise InputError(f"{path}: not an offered run; delete the file, the server offers it again") from None
        if study in (None, run.study.name):
            runs.append(run)
    return runs


def _newest_first(folder: Path, names: str) -> list[Path]:
    """Return the files of a pattern; without those that vanish meanwhile."""
    times = dict[Path, float]()
    for path in folder.glob(names):
        with contextlib.suppress(FileNotFoundError):
            times[path] = path.stat().st_mtime
    return sorted(times, key=times.__getitem__, reverse=True)


def note_decline(folder: Path, run: RunConfig) -> None:
    """Keep a person's no to a run, until `take_decline_back`."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_durably(_decline(folder, run), b"", 0o600)


def take_decline_back(folder: Path, run: RunConfig) -> None:
    """Forget a person's no."""
    _decline(folder, run).unlink(missing_ok=True)


def is_declined(folder: Path, run: RunConfig) -> bool:
    """Return whether a person said no to a run."""
    return _decline(folder, run).exists()


def _decline(folder: Path, run: RunConfig) -> Path:
    return folder / f"{run.sha256()}.declined"


def note_joined(folder: Path, run: RunConfig, dataset: DatasetSection) -> None:
    """Keep that a dataset has joined a run, for a client that begins again before the next round."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_durably(_joined(folder, run, dataset), b"", 0o600)
    for old in _newest_first(folder, f"*{_JOINED}")[_KEPT_MARKS:]:
        old.unlink(missing_ok=True)


def is_joined(folder: Path, run: RunConfig, dataset: DatasetSection) -> bool:
    """Return whether `note_joined` kept a run for a dataset, with all its settings: another file holds other people."""
    return _joined(folder, run, dataset).exists()


def _joined(folder: Path, run: RunConfig, dataset: DatasetSection) -> Path:
    settings = hashlib.sha256(dataset.model_dump_json().encode()).hexdigest()
    return folder / f"{run.sha256()}-{settings[:16]}{_JOINED}"


def approved_runs(folder: Path, account: Account) -> list[RunConfig]:
    """The newest approved run of each study that can still spend: that is not closed, and has steps left."""
    agreed = [run for run in reversed(read_offers(folder)) if (run.study.name, run.sha256()) in account.approved]
    newest = {run.study.name: run for run in agreed}
    over = {name for name, study in account.studies.items() if study.closed or study.is_spent}
    return [run for name, run in newest.items() if name not in over]
