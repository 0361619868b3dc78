"""An institution's installation: its settings, its records, its ledger, its outbox, its keys."""

import contextlib
import functools
import hashlib
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

from confide.client.config import SiteConfig, load_site_config
from confide.client.data.dataset_claims import People
from confide.client.data.private_data import PrivateData
from confide.client.data.records import check_file, read_records
from confide.client.privacy.database import Database
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.outbox import FileOutbox, Outbox
from confide.client.privacy.release import recover
from confide.client.privacy.rollback import Witnesses, anchor_of
from confide.client.privacy.sum_shares import recover_shares
from confide.client.privacy.terms import Terms
from confide.client.site.commitments import commit_to_people, commit_to_secret, require_people, require_secret
from confide.client.site.journal import keep_error, keep_refusal
from confide.common.data.records import Record
from confide.common.durable import sync_folder, write_durably
from confide.common.errors import ConfideError, InputError, LedgerError
from confide.common.protocol.signatures import Identity
from confide.common.tasks import Task

# File systems over a network, by the beginning of their name in /proc/mounts; fuse ones that are local.
_NETWORK = ("nfs", "cifs", "smb", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.")
_LOCAL = ("fuse.fuse-overlayfs", "fuse.ntfs-3g", "fuse.lxcfs")


@dataclass(frozen=True, kw_only=True)
class Institution:
    """An institution's installation without its data: it can refuse, charge, sign and send, and see no record.

    Attributes:
        config: site.toml.
        identity: signs what leaves.
        ledger, outbox: of this dataset.
        report: is told of every error, and keeps it here.
        offers: folder for runs that wait for a person's approval; None in a simulation, where nobody is asked.
        models: folder for finished adapters; None in a simulation.
    """

    config: SiteConfig
    identity: Identity
    ledger: Ledger
    outbox: Outbox
    report: Callable[[BaseException], None]
    offers: Path | None = None
    models: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Site(Institution):
    """An institution with its data.

    Attributes:
        data: the key to its records.
        shares: holds the shares of secure sums, which are made of them and never leave as they are.
        splits: folder for notes of how the records of a run were divided; None in a simulation.
    """

    data: PrivateData
    shares: Outbox
    splits: Path | None = None

    def with_report(self, report: Callable[[BaseException], None]) -> "Site":
        """Return the same site, which reports its errors elsewhere."""
        return replace(self, report=report)

    def without_data(self) -> Institution:
        """Return the institution alone, for what must not see a record."""
        own = {field.name: getattr(self, field.name) for field in fields(Institution)}
        return Institution(**own)


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
        begun = [state / "ledger.db", state / "people.db", anchor_of(config.state.anchor, dataset.id)]
        secret, seed = (_secret(state / name, begun) for name in ("secret.key", "identity.key"))
        own = hashlib.sha256(dataset.id.encode()).hexdigest()[:16]  # of several datasets in one state folder
        outbox, shares = (FileOutbox(_folder(state, name) / own) for name in ("outbox", "shares"))
        people = People(state / "people.db")
    except OSError as error:
        raise InputError(
            f"{path}: state.dir = {state}: {error.strerror}; choose a folder that can be written"
        ) from None
    try:
        witnesses = Witnesses(config.state.anchor, state / "audit.jsonl", dataset.id)
    except OSError as error:
        raise InputError(
            f"{path}: state.anchor = {config.state.anchor}: {error.strerror}; choose a folder that can be written"
        ) from None
    known = commit_to_secret(secret, dataset.id)
    terms = Terms(dataset.id, dataset.unit, dataset.most_records, secret_commitment=known)
    database = Database(state / "ledger.db")
    ledger = Ledger(database, terms, witnesses, lambda previous: commit_to_people(secret, previous, people.head()))
    witnesses.check(ledger.rows)
    accounts = ledger.accounts()  # adds up every row: a chain that is broken shows here
    require_secret(state / "secret.key", secret, accounts, witnesses)
    require_people(state / "people.db", people, secret, accounts)
    recover(ledger, outbox)
    recover_shares(ledger, outbox, shares)

    def records(task: Task) -> list[Record]:
        return read_records(dataset, task)

    def check(task: Task) -> None:
        check_file(dataset, task)

    return Site(
        config=config,
        identity=Identity(seed),
        ledger=ledger,
        outbox=outbox,
        shares=shares,
        report=functools.partial(_report, state, path.absolute().parent / "local"),
        offers=state / "offers",
        splits=state / "splits",
        models=config.models.dir,
        data=PrivateData(dataset, records, secret, people, state / "cache", check),
    )


def _folder(state: Path, name: str) -> Path:
    (state / name).mkdir(exist_ok=True, mode=0o700)
    return state / name


def _secret(path: Path, begun: list[Path]) -> bytes:
    """32 secret bytes, drawn once, and not if one of the files of a site that has ``begun`` is there."""
    remedy = "put it back from the backup"
    if path.name == "identity.key":  # the other one has no replacement
        remedy += ", or replace it: `confide client join ADDRESS --new-keys`"
    if not path.exists():
        there = [file for file in begun if os.path.exists(file)]
        if there and not path.exists():  # or another process has drawn it meanwhile, and gone on
            raise LedgerError(f"{path} is gone, though {there[0]} is there; {remedy}")
        drawn = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        write_durably(drawn, os.urandom(32), 0o600)
        with contextlib.suppress(FileExistsError):  # another process was first: its secret is the one
            os.link(drawn, path)
        drawn.unlink()
        sync_folder(path.parent)
    content = path.read_bytes()
    if len(content) != 32:
        raise LedgerError(f"{path}: {len(content)} bytes, must be 32; {remedy}")
    return content


def _report(state: Path, local: Path, error: BaseException) -> None:
    """Keep what went wrong: a refusal with its reason, any other error with its traceback. Neither is ever sent."""
    if isinstance(error, ConfideError):
        keep_refusal(state, error)
    keep_error(local, error)


def _require_local(folder: Path) -> None:
    """SQLite's locks do not hold on network file systems (sqlite.org/lockingv3.html, section 6)."""
    mounts = Path("/proc/mounts")
    if not mounts.is_file():  # not Linux
        return
    listed = mounts.read_text(encoding="utf-8", errors="surrogateescape")  # a name on a stick may have any bytes
    lines = [line.split(" ") for line in listed.splitlines()]
    places = [(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line[1]), line[2]) for line in lines]
    inside = [(len(place), number, kind) for number, (place, kind) in enumerate(places) if _is_in(folder, place)]
    kind = max(inside, default=(0, 0, ""))[2]  # the nearest, and of several in one place the last
    if kind.startswith(_NETWORK) and kind not in _LOCAL:
        raise InputError(f"state.dir = {folder} lies on a network file system ({kind}); a ledger needs a local disk")


def _is_in(folder: Path, place: str) -> bool:
    return folder.resolve().is_relative_to(place)
