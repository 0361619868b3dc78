"""A table of records as simulated institutions: who has which records, and which of them are public for testing."""

import functools
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Context
from numpy.random import PCG64, Generator

from confide.client.site_config import (
    ComputeSection,
    DatasetSection,
    InstitutionSection,
    PolicySection,
    Site,
    SiteConfig,
)
from confide.common.errors import InputError
from confide.common.records import Row, check_records, read_rows, select
from confide.common.run_config import RunConfig, SimulationSection
from confide.simulations.texts import SOURCES


@dataclass(frozen=True)
class Institutions:
    """Simulated institutions with their private records, and a public test share for each.

    Attributes:
        private: records by institution, for training and validation.
        public: test records by institution.
        warnings: what the user should know about the data.
    """

    private: dict[str, list[Row]]
    public: dict[str, list[Row]]
    warnings: tuple[str, ...] = ()


def load_institutions(run: RunConfig) -> Institutions:
    """Read the data of a simulation and share them out; the public seed decides every choice.

    The last result is kept: a run and its baselines share it.

    Raises:
        InputError: bad data or a partition that they do not allow.
    """
    return _load(run.model_dump_json(include={"study", "task", "simulation", "evaluation"}))


@functools.lru_cache(maxsize=1)
def _load(run_json: str) -> Institutions:
    run = RunConfig.model_validate_json(run_json)
    settings = run.simulation
    if settings is None:
        raise InputError("[simulation] is missing: name the data, for example data = 'reviews.jsonl'")
    rows, warnings = _read(run, settings)
    groups = _partition(rows, settings, run.study.seed)
    private, public = {}, {}
    test = _read_public_test(run, settings)
    for name, rows_of_one in groups.items():
        order = _stream(run.study.seed, name).permutation(len(rows_of_one))
        members = [rows_of_one[index] for index in order][: settings.max_records]
        size = 0 if test else max(1, round(settings.test_fraction * len(members)))
        if len(members) - size < 2:
            raise InputError(
                f"institution {name!r} has {len(members)} records, too few for training and a test share; "
                "use fewer institutions or more data"
            )
        public[name], private[name] = members[:size], members[size:]
    return Institutions(private, test or public, tuple(warnings))


def _read(run: RunConfig, settings: SimulationSection) -> tuple[list[Row], list[str]]:
    if settings.data in SOURCES:
        rows, source = SOURCES[settings.data](), settings.data
    else:
        rows, source = read_rows(Path(settings.data)), settings.data
    columns = {name: settings.columns.get(name, name) for name in run.task.fields()}
    if "group" in settings.columns:
        columns["group"] = settings.columns["group"]
    if settings.by is not None:
        columns["institution"] = settings.by
    return check_records(select(rows, columns, source), run.task, settings.max_chars, source)


def _read_public_test(run: RunConfig, settings: SimulationSection) -> dict[str, list[Row]]:
    if run.evaluation.data is None:
        return {}
    columns = {name: settings.columns.get(name, name) for name in run.task.fields()}
    rows = select(read_rows(Path(run.evaluation.data)), columns, run.evaluation.data)
    records, _ = check_records(rows, run.task, settings.max_chars, run.evaluation.data)
    return {"public": records}


def _stream(seed: int, name: str) -> Generator:
    return Generator(PCG64([seed, *hashlib.sha256(name.encode()).digest()]))


def _partition(rows: list[Row], settings: SimulationSection, seed: int) -> dict[str, list[Row]]:
    if settings.partition == "natural":
        return _natural(rows, settings)
    num = settings.clients or 4
    if num * 3 > len(rows):
        raise InputError(f"{settings.data}: {len(rows)} records are too few for {num} institutions; use --clients N")
    import datasets

    # Flower's partitioners want label names as values and an index to find the record again.
    table = datasets.Dataset.from_dict(
        {"index": list(range(len(rows))), "label": [str(row.get("label", "")) for row in rows]}
    )
    partitioner = _partitioner(settings, num, len(rows), seed)
    partitioner.dataset = table.shuffle(seed=seed)
    width = len(str(num))
    try:
        parts = [partitioner.load_partition(index)["index"] for index in range(num)]
    except ValueError as error:
        raise InputError(
            f"simulation.partition = {settings.partition!r} with alpha = {settings.alpha} and {num} institutions "
            f"cannot be made from {len(rows)} records; use fewer institutions or another alpha"
        ) from error
    return {f"institution-{number:0{width}d}": [rows[index] for index in part] for number, part in enumerate(parts, 1)}


def _partitioner(settings: SimulationSection, num: int, num_rows: int, seed: int) -> Any:
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner, SizePartitioner

    if settings.partition == "dirichlet":
        return DirichletPartitioner(num, "label", settings.alpha, min_partition_size=3, seed=seed)
    if settings.partition == "power-law":
        shares = [rank**-settings.alpha for rank in range(1, num + 1)]
        sizes = [max(3, math.floor(num_rows * share / sum(shares))) for share in shares]
        return SizePartitioner(sizes)
    return IidPartitioner(num)


def _natural(rows: list[Row], settings: SimulationSection) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        record = dict(row)
        groups.setdefault(str(record.pop("institution")), []).append(record)
    if settings.clients not in (None, len(groups)):
        raise InputError(
            f"--clients {settings.clients} (simulation.clients), but column {settings.by!r} names {len(groups)} "
            "institutions; leave it out, or use another partition"
        )
    return dict(sorted(groups.items()))


def declared_size(num_units: int) -> int:
    """What a simulated institution declares in public: its size to one significant figure.

    It stands for the round number that an administrator would type by hand; a real institution's is never computed.

    >>> declared_size(2137)
    2000
    """
    magnitude: int = 10 ** max(0, len(str(num_units)) - 1)
    return max(1, round(num_units / magnitude) * magnitude)


@dataclass(frozen=True)
class SimulatedSites:
    """Maps a simulation's nodes to sites; small enough to travel to Ray's workers, which read the data themselves."""

    run: RunConfig
    names: tuple[str, ...]
    load: Callable[[RunConfig], dict[str, list[Row]]]
    local: Path

    def __call__(self, context: Context) -> Site:
        """The site of a node."""
        name = self.names[int(context.node_config["partition-id"])]
        records = self.load(self.run)[name]
        share = self.run.simulation.validation_fraction if self.run.simulation else 0.0
        units = len({record["group"] for record in records}) if "group" in records[0] else len(records)
        config = SiteConfig(
            institution=InstitutionSection(name=name),
            dataset=DatasetSection(
                id=f"simulated-{name}",
                path=Path(),
                columns={"group": "group"} if "group" in records[0] else {},
                unit="group" if "group" in records[0] else "record",
                declared_units=declared_size(round((1 - share) * units)),
                validation_fraction=share,
            ),
            policy=PolicySection(allow_no_privacy=self.run.privacy.unit == "none"),
            compute=ComputeSection(
                device=self.run.speed.device, tokens_per_micro_batch=self.run.speed.tokens_per_micro_batch
            ),
        )
        secret = hashlib.sha256(f"simulated {self.run.study.seed} {name}".encode()).digest()
        return Site(config, lambda _: records, secret, functools.partial(_report, self.local, name))


def _report(local: Path, name: str, error: BaseException) -> None:
    """Keep a traceback in the run directory's ``local/``: in a simulation the user owns both ends."""
    import traceback

    local.mkdir(parents=True, exist_ok=True)
    with (local / f"{name}.log").open("a", encoding="utf-8") as file:
        file.write("".join(traceback.format_exception(error)) + "\n")


def load_private(run: RunConfig) -> dict[str, list[Row]]:
    """Private records by institution: what `SimulatedSites` loads for a federation."""
    return load_institutions(run).private


def load_alone(name: str, run: RunConfig) -> dict[str, list[Row]]:
    """One institution's private records: the local-only baseline."""
    return {name: load_private(run)[name]}


def load_pooled(run: RunConfig) -> dict[str, list[Row]]:
    """All private records as one institution: the central baseline."""
    return {"central": [record for records in load_institutions(run).private.values() for record in records]}
