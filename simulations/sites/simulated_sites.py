"""A simulated institution as a site: the settings that a real one would have in its site.toml."""

import functools
import hashlib
import re
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from flwr.app import Context

from confide.client.config import (
    DatasetSection,
    InstitutionSection,
    SiteConfig,
)
from confide.client.data.dataset_claims import Names
from confide.client.data.private_data import PrivateData
from confide.client.privacy.chain import Witness
from confide.client.privacy.database import Database
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.outbox import Outbox
from confide.client.privacy.policy import cap_of
from confide.client.privacy.terms import Terms
from confide.client.site.installation import Site
from confide.common.config.run import RunConfig, make_plan
from confide.common.config.sections import SECURE_SUM
from confide.common.data.records import Record
from confide.common.errors import ConfideError
from confide.common.protocol.signatures import Identity
from confide.simulations.data.partition import gather
from confide.simulations.sites.agreeing import allowing, partners_of

_ANSWERS = 3  # of an institution in a round of a secure sum: envelope, masked share, validation counts


def declared_size(num_units: int) -> int:
    """Return the size that a simulated institution declares in public: to one significant figure.

    It stands for the round number that an administrator would type by hand; a real institution's is never computed.

    >>> declared_size(2137)
    2000
    """
    magnitude: int = 10 ** max(0, len(str(num_units)) - 1)
    return max(1, round(num_units / magnitude) * magnitude)


def declared_by(run: RunConfig, records: list[Record]) -> int:
    """Return the size that a simulated institution with these records declares: of its training share."""
    held_out = run.simulation.validation_fraction if run.simulation else 0.0
    return declared_size(round((1 - held_out) * len(gather(records))))


class MemoryOutbox:
    """An outbox in memory: the newest answers only, since one process asks and answers.

    Args:
        kept: how many; between the two exchanges of a secure sum each institution has one or two.
    """

    def __init__(self, kept: int = 1) -> None:
        self._kept, self._newest = kept, dict[str, bytes]()

    def put(self, name: str, content: bytes) -> None:
        """Keep an answer."""
        self._newest[name] = content
        for old in list(self._newest)[: -self._kept]:
            del self._newest[old]

    def get(self, name: str) -> bytes | None:
        """Return an answer, or None."""
        return self._newest.get(name)

    def names(self) -> list[str]:
        """Return the names of all answers."""
        return list(self._newest)

    def delete(self, name: str) -> None:
        """Forget an answer."""
        self._newest.pop(name, None)

    def busy(self) -> AbstractContextManager[None]:
        """Return a context that locks nothing: no other process uses this outbox."""
        return nullcontext()

    def idle(self) -> AbstractContextManager[None]:
        """Return a context that locks nothing: no other process uses this outbox."""
        return nullcontext()


def _nobody(row: Record, row_hash: str) -> None:
    """Do nothing: the witness of a ledger in memory."""


def _in_memory() -> Database:
    return Database(":memory:")


class Kept(Protocol):
    """A place outside of the process for ledger rows, and for answers and shares of the open round."""

    def open_database(self) -> Database:
        """Return the database of all ledgers."""

    def note(self, row: Record, row_hash: str) -> None:
        """Keep a new row."""

    def outbox(self) -> Outbox:
        """Return the outbox of the open round's answers."""

    def shares(self) -> Outbox:
        """Return the held shares of the open round."""


@dataclass(frozen=True)
class SimulatedSites:
    """A map from a simulation's nodes to sites; small enough to send to Ray's workers, which read the data themselves.

    Each site has the ledger of a real one, in the memory of one process or in a file that Ray's workers share. All
    sites share a connection and an outbox: otherwise thousands of institutions would need gigabytes.

    Attributes:
        run: for the public seed and the settings of `[simulation]` and `[speed]`.
        names: of the institutions, in the order of the nodes.
        load: private records by institution.
        local: folder in which sites keep their tracebacks.
        ledgers: by institution, made on first use.
        open_database: opens the database that all ledgers share.
        witness: of all ledgers.
        outbox: of all sites, for this process asks and answers one after the other.
        shares: held shares of a secure sum, by institution; made on first use.
        refused: the last refusal of each institution, which a real server never sees.
    """

    run: RunConfig
    names: tuple[str, ...]
    load: Callable[[RunConfig], dict[str, list[Record]]]
    local: Path
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    open_database: Callable[[], Database] = _in_memory
    witness: Witness = _nobody
    outbox: Outbox = field(default_factory=MemoryOutbox)
    shares: dict[str, Outbox] = field(default_factory=dict)
    refused: dict[str, ConfideError] = field(default_factory=dict)

    @functools.cached_property
    def _database(self) -> Database:
        return self.open_database()

    def __call__(self, context: Context) -> Site:
        """Return the site of a node."""
        name = self.names[int(context.node_config["partition-id"])]
        records = self.load(self.run)[name]
        config = self._config(name, records)
        if name not in self.ledgers:
            terms = Terms(config.dataset.id, config.dataset.unit, config.dataset.most_records, simulated=True)
            self.ledgers[name] = Ledger(self._database, terms, self.witness)
            self._approve(self.ledgers[name], config)
        secret = simulated_secret(self.run, name)
        return Site(
            config=config,
            identity=Identity(secret),
            ledger=self.ledgers[name],
            outbox=self.outbox,
            shares=self.shares.setdefault(name, MemoryOutbox()),
            report=functools.partial(_report, self.local, self.refused, name),
            data=PrivateData(config.dataset, lambda _: records, secret, _OnlyDataset(), self.local),
        )

    def _approve(self, ledger: Ledger, config: SiteConfig) -> None:
        """Approve a secure sum: a person has to, and here it is the one who simulates it."""
        if self.run.federation.aggregation == SECURE_SUM:
            plan = make_plan(self.run, config.dataset.declared_units)
            ledger.approve(self.run.study.name, self.run.sha256(), plan, cap_of(config.policy))

    def _config(self, name: str, records: list[Record]) -> SiteConfig:
        grouped, settings = "group" in records[0], self.run.simulation
        dataset = DatasetSection(
            id=f"simulated-{name}",
            path=Path(),
            columns={"group": "group"} if grouped else {},
            unit="group" if grouped else "record",
            declared_units=declared_by(self.run, records),
            validation_fraction=settings.validation_fraction if settings else 0.0,
        )
        return SiteConfig(
            institution=InstitutionSection(name=name),
            dataset=dataset,
            policy=allowing(self.run, dataset.declared_units),
            compute=self.run.speed,
            partners=partners_of(self.run),
        )


def simulated_secret(run: RunConfig, name: str) -> bytes:
    """Return the secret of a simulated institution: it is public, so that a simulation can be repeated."""
    return hashlib.sha256(f"simulated {run.study.seed} {name}".encode()).digest()


class _OnlyDataset:
    """The people of an institution that has one dataset: all belong to it."""

    def claim_all(self, dataset: str, people: set[Names]) -> bool:
        """Return True: every claim succeeds."""
        return True

    def claim(self, dataset: str, people: set[Names]) -> set[Names]:
        """Return all people: every claim succeeds."""
        return people

    def elsewhere(self, dataset: str, people: set[Names]) -> set[Names]:
        """Return the empty set: no other dataset has claimed any person."""
        return set()


def _report(local: Path, refused: dict[str, ConfideError], name: str, error: BaseException) -> None:
    """Keep a traceback in the run directory's ``local/``; in a simulation the user owns both ends."""
    local.mkdir(parents=True, exist_ok=True)
    path = local / f"{re.sub(r'[^A-Za-z0-9-]', '_', name)}.log"  # a name comes from data, and may be "../x"
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)) + "\n")
    note_refusal(refused, name, error)


def note_refusal(refused: dict[str, ConfideError], name: str, error: BaseException) -> None:
    """Remember the reason for which an institution last declined, if a user can act on it."""
    if isinstance(error, ConfideError):
        refused[name] = type(error)(str(error))  # without its traceback, which holds the ask and its adapter


def simulated_sites(
    run: RunConfig, load: Callable[[RunConfig], dict[str, list[Record]]], local: Path, kept: Kept | None = None
) -> SimulatedSites:
    """Return the sites of a simulation, one for each institution of which ``load`` has records.

    With ``kept`` a killed process forgets nothing, and other processes know of it: all earlier ledger rows and the open
    round's answers are there.
    """
    names = tuple(load(run))
    outbox = MemoryOutbox(_ANSWERS * len(names) if run.federation.aggregation == SECURE_SUM else 1)
    sites = SimulatedSites(run, names, load, local, outbox=outbox)
    if kept is None:
        return sites
    shares: dict[str, Outbox] = dict.fromkeys(names, kept.shares())
    return replace(sites, open_database=kept.open_database, witness=kept.note, outbox=kept.outbox(), shares=shares)
