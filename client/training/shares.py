"""Private records as encoded units for training and for validation, made once before the rounds of a run."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from confide.client.data.dataset_claims import Names
from confide.client.data.private_data import PrivateData
from confide.client.data.units import gather_units, make_units, names_of, split_records
from confide.client.site.installation import Institution, Site
from confide.client.training.batches import BatchedUnits, batch_units, with_prefixes
from confide.client.training.trial import tried_shapes
from confide.client.training.validation import Units
from confide.common.config.run import RunConfig
from confide.common.config.simulation import SpeedSection
from confide.common.data.records import Record
from confide.common.data.shapes import Shapes
from confide.common.errors import PolicyError
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.privacy.coins import Coins, CoinSource
from confide.common.protocol.secure_sum import SignedShare
from confide.common.tasks import Task

_MAX_SHARES = 128  # institutions of one client process; a real one has one


@dataclass(frozen=True)
class Shares:
    """An institution's two shares, encoded for one run."""

    training: BatchedUnits
    validation: Units

    def in_shapes(self, shapes: Shapes) -> "Shares":
        """Return the same shares for micro-batches of these shapes."""
        return replace(self, training=replace(self.training, shapes=shapes))


@dataclass(frozen=True)
class Prepared:
    """Shares, and what they were made of.

    Attributes:
        made_for: run and dataset settings.
        file: the state that the data file was in (`file_state`).
        shares: made of them.
    """

    made_for: str
    file: str
    shares: Shares


@dataclass(frozen=True)
class RehearsedShare:
    """The share of zeros that an institution holds in a rehearsal, in memory alone.

    It stays until the next rehearsal or the end of the process, and answers any number of statements. The masks of
    zeros tell nothing, and its mask key is used in no round.

    Attributes:
        secret: its mask key.
        signed: its envelope.
        size: how many zeros.
    """

    secret: bytes
    signed: SignedShare
    size: int


@dataclass
class ClientProcess:
    """A client process: what it keeps between messages, and the sources of its randomness and its time."""

    coins: Callable[[], CoinSource] = Coins.fresh
    now: Callable[[], float] = time.time
    shares: dict[str, Prepared] = field(default_factory=dict)  # by institution
    rehearsed: dict[str, RehearsedShare] = field(default_factory=dict)  # by institution, of its last rehearsal
    over: set[tuple[str, str]] = field(default_factory=set)  # institutions and hashes of their finished runs

    def keep(self, institution: str, prepared: Prepared) -> None:
        """Keep encoded shares, of so many institutions as fit; a simulation encodes the others' again each time.

        Keep the first 128. Evicting the oldest would miss on every institution when a round has 129.
        """
        if institution in self.shares or len(self.shares) < _MAX_SHARES:
            self.shares[institution] = prepared

    def finish(self, institution: str, run_sha256: str) -> None:
        """A run is over: what was made of the texts for it goes.

        Until it is joined anew, while this process lives, its rounds are refused: else a server would see in the next
        one whether the data file can be read now.
        """
        kept = self.shares.get(institution)
        if kept is not None and kept.made_for.startswith(f"{run_sha256} "):
            del self.shares[institution]
            self.over.add((institution, run_sha256))


def file_state(path: Path) -> str:
    """Another text after every change of a file, or in a folder; empty where none can be seen, as in a simulation.

    Of the inode too, and of the time that nobody can set: a file that was moved here may keep an old date.
    """
    try:
        seen = path.stat()
        if S_ISDIR(seen.st_mode) and path != Path():
            return " ".join(map(file_state, sorted(part for part in path.rglob("*") if part.is_file())))
    except (OSError, ValueError):  # also of a share that is away: whoever reads the file says why
        return ""
    return f"{seen.st_ino} {seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns}" if S_ISREG(seen.st_mode) else ""


def prepare(data: PrivateData, compute: SpeedSection, model: WarmModel, *, joining: bool) -> Shares:
    """Read, check, cut and encode an institution's records.

    People whom another dataset of this state folder has claimed refuse a run that the site is just ``joining``. In a
    round they decide nothing: were their units left out, a record of the other dataset, whose ledger is not charged
    for this round, would decide which units of this one count. Whoever came into the file since the site has joined
    is charged here, and found at the next joining.

    Raises:
        InputError: a file that cannot be read; while joining also a line or a column that is not there.
        PolicyError: people of another dataset, while joining.
    """
    dataset = data.dataset
    if joining:
        data.check_file(model.task)
    known = _named(data, model.task)
    people = {names for _, names in known}
    if joining and not data.claims.claim_all(dataset.id, people):
        raise PolicyError(
            f"dataset {dataset.id!r} holds people of another dataset id of this state folder: their budget is counted "
            "there; use that id, or take them out of this file"
        )
    if not joining:
        data.claims.claim(dataset.id, people)  # for other datasets' joining: who it leaves to another counts here, too
    return _encoded([record for record, _ in known], data, compute, model, dataset.validation_fraction)


def shares_at_home(data: PrivateData, compute: SpeedSection, model: WarmModel, fraction: float) -> Shares:
    """The shares for work whose result stays here; ``fraction`` is held out (`held_out.held_out_fraction`).

    Nobody is claimed, for nothing is charged.

    Raises:
        InputError: a line or a column is not there.
    """
    data.check_file(model.task)
    return _encoded([record for record, _ in _named(data, model.task)], data, compute, model, fraction)


def _named(data: PrivateData, task: Task) -> list[tuple[Record, Names]]:
    """Return the records that may be used, with the names of their people."""
    known = ((record, names_of(record, task, data.secret)) for record in data.records(task))
    return [(record, names) for record, names in known if names is not None]


def _encoded(
    records: list[Record], data: PrivateData, compute: SpeedSection, model: WarmModel, fraction: float
) -> Shares:
    dataset = data.dataset
    mine = [model.task.cut(dict(record), dataset.max_chars) for record in records]
    training, validation = split_records(mine, data.secret, fraction)
    most = dataset.most_records
    table = make_units(training, model.task, model.tokenizer, data.secret, most)
    held_out = gather_units(validation, model.task, model.tokenizer, data.secret, most)
    units = batch_units(table, model, tried_shapes(model, compute.tokens_per_micro_batch))
    if compute.prefix_cache:
        units = with_prefixes(units, model, data.cache)
    return Shares(units, [[record for record, _ in unit] for unit in held_out])


def model_of(run: RunConfig, site: Institution) -> WarmModel:
    """The warm model of a run, on this institution's machine, with every shape of a micro-batch tried."""
    compute = site.config.compute
    model = warm_model(run, compute, site.models)
    tried_shapes(model, compute.tokens_per_micro_batch)
    return model


def shares_of(run: RunConfig, site: Site, client: ClientProcess, *, joining: bool) -> tuple[WarmModel, Shares]:
    """The model and the site's shares, encoded for this run from the data file as it is now.

    Guarantee: who takes a record out of the file has it out of the next round. A file that cannot be read any more in
    the middle of a run decides nothing: what was read before it counts on.
    """
    over = site.config.institution.name, run.sha256()
    if not joining and over in client.over:
        raise PolicyError(f"the run of study {run.study.name!r} is over; its rounds are answered after another offer")
    model = model_of(run, site)
    # Those that are tried now: another run may have lowered the number of threads since the shares were made.
    shapes = tried_shapes(model, site.config.compute.tokens_per_micro_batch)
    # By the hash of the run: units encoded for other labels would make an answer depend on which classes are present.
    # And by the dataset: site.toml may name other people since, and their ledger is the one that is charged.
    name, made_for = site.config.institution.name, f"{run.sha256()} {site.config.dataset.model_dump_json()}"
    made_for += site.config.compute.model_dump_json()
    file, before = file_state(site.config.dataset.path), client.shares.get(name)
    goes_on = before is not None and before.made_for == made_for and not joining
    if before is not None and goes_on and before.file == file:
        return model, before.shares.in_shapes(shapes)
    try:
        prepared = Prepared(made_for, file, prepare(site.data, site.config.compute, model, joining=joining))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        if before is None or not goes_on:
            raise
        site.report(error)
        return model, before.shares.in_shapes(shapes)
    client.keep(name, prepared)
    client.over.discard(over)  # not before: a refused offer would open the rounds again
    return model, prepared.shares
