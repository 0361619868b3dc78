"""An institution's installation: its settings, its records, its ledger, its outbox, its keys."""

import functools
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from confide.client.identity import Identity
from confide.client.ledger import Ledger, Terms
from confide.client.outbox import FileOutbox, Outbox
from confide.client.people import People
from confide.client.release import recover
from confide.client.site_config import SiteConfig, load_site_config, read_records
from confide.client.witnesses import Witnesses
from confide.common.durable import append_durably, replace_durably
from confide.common.errors import ConfideError, InputError, LedgerError
from confide.common.records import Row
from confide.common.tasks import Task

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "afs", "ceph", "glusterfs", "lustre")


@dataclass(frozen=True)
class Site:
    """An institution's installation, as the client uses it.

    Attributes:
        config: site.toml.
        records: reads and cuts the private records of a task.
        secret: 32 bytes that never leave; keys the names of units.
        identity: signs what leaves.
        ledger, outbox, people: of this dataset.
        report: is told of every error, and keeps it here.
        offers: folder for runs that wait for a person's approval; None in a simulation, where nobody is asked.
    """

    config: SiteConfig
    records: Callable[[Task], list[Row]]
    secret: bytes
    identity: Identity
    ledger: Ledger
    outbox: Outbox
    people: People
    report: Callable[[BaseException], None]
    offers: Path | None = None

    def with_report(self, report: Callable[[BaseException], None]) -> "Site":
        """The same site, which reports its errors elsewhere."""
        return replace(self, report=report)


def open_site(path: Path) -> Site:
    """The site of a site.toml, with its state folder, made on first use.

    Raises:
        InputError: the file, or a state folder on a network file system.
        LedgerError: the ledger is not whole, or older than something that it must be newer than.
    """
    config = load_site_config(path)
    state, dataset = config.state.dir, config.dataset
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        _require_local(state)
        secret, seed = (_secret(state, name) for name in ("secret.key", "identity.key"))
        witnesses = Witnesses(config.state.anchor, state / "audit.jsonl", dataset.id)
        outbox, people = FileOutbox(state / "outbox"), People(state / "people.db")
    except OSError as error:
        raise InputError(
            f"{path}: state.dir = {state}: {error.strerror}; choose a folder that can be written"
        ) from None
    terms = Terms(dataset.id, dataset.unit, dataset.most_records)
    ledger = Ledger(state / "ledger.db", terms, witnesses)
    witnesses.check(ledger.rows())
    ledger.account()  # adds up every row: a chain that is broken shows here
    recover(ledger, outbox)

    def records(task: Task) -> list[Row]:
        return read_records(dataset, task)

    report = functools.partial(_report, path.absolute().parent / "local", witnesses)
    return Site(config, records, secret, Identity(seed), ledger, outbox, people, report, state / "offers")


def _secret(state: Path, name: str) -> bytes:
    """32 secret bytes, drawn once. Another secret would move units between train and validation, unnoticed."""
    path = state / name
    if not path.exists():
        if (state / "ledger.db").exists():
            raise LedgerError(f"{path} is gone, though there is a ledger; put it back from the backup")
        replace_durably(path, os.urandom(32), 0o600)
    content = path.read_bytes()
    if len(content) != 32:
        raise LedgerError(f"{path}: {len(content)} bytes, must be 32; put it back from the backup")
    return content


def _report(local: Path, witnesses: Witnesses, error: BaseException) -> None:
    """Keep what went wrong: a refusal in the audit log, the traceback in ``local/``. Neither is ever sent."""
    if isinstance(error, ConfideError):
        witnesses.note("refused", reason=str(error))
    local.mkdir(exist_ok=True, mode=0o700)
    append_durably(local / "errors.log", "".join(traceback.format_exception(error)))


def _require_local(folder: Path) -> None:
    """SQLite's locks do not hold on network file systems (sqlite.org/lockingv3.html, section 6)."""
    mounts = Path("/proc/mounts")
    if not mounts.is_file():  # not Linux
        return
    entries = [line.split(" ")[1:3] for line in mounts.read_text(encoding="utf-8").splitlines()]
    inside = [(len(place), kind) for place, kind in entries if folder.resolve().is_relative_to(place)]
    kind = max(inside, default=(0, ""))[1]
    if kind in _NETWORK:
        raise InputError(f"state.dir = {folder} lies on a network file system ({kind}); a ledger needs a local disk")
