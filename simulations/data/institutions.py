"""A table of records as simulated institutions: their private records, and the public ones for testing."""

import functools
from dataclasses import dataclass
from pathlib import Path

from confide.common.config.run import RunConfig
from confide.common.config.sections import PrivacySection
from confide.common.config.simulation import SimulationSection
from confide.common.data.records import Record, check_records, numbered_rows, read_public, select
from confide.common.errors import InputError
from confide.common.settings import Section
from confide.simulations.data.partition import partition, shuffled
from confide.simulations.data.texts import SOURCES


@dataclass(frozen=True)
class Institutions:
    """Simulated institutions with their private records, and a public test share for each.

    Attributes:
        private: records by institution, for training and validation.
        public: test records by institution.
        warnings: remarks on the data for the user.
    """

    private: dict[str, list[Record]]
    public: dict[str, list[Record]]
    warnings: tuple[str, ...] = ()


def load_institutions(run: RunConfig) -> Institutions:
    """Read the data of a simulation and divide them among institutions; the public seed decides every choice.

    The last result is kept: a run and its baselines share it.

    Raises:
        InputError: the data are bad, or do not allow the partition.
    """
    study = run.study.model_copy(update={"institutions": (), "keys": {}})  # which a secure sum takes from the data
    neutral = run.model_copy(update={"privacy": PrivacySection(unit="none"), "study": study, **_placed(run)})
    deciding = dict.fromkeys(("study", "task", "privacy", "simulation"), True)
    return _load(neutral.model_dump_json(include={**deciding, "evaluation": {"data"}}))  # all that chooses records


def _placed(run: RunConfig) -> dict[str, Section]:
    """Return the sections that name data, with the places of these data."""
    named = {"simulation": run.simulation, "evaluation": run.evaluation}
    return {
        key: section.model_copy(update={"data": run.at(section.data)})
        for key, section in named.items()
        if section is not None and section.data is not None
    }


@functools.lru_cache(maxsize=1)
def _load(run_json: str) -> Institutions:
    run = RunConfig.model_validate_json(run_json)
    settings = run.simulation
    if settings is None:
        raise InputError("[simulation] is missing: name the data, for example data = 'reviews.jsonl'")
    rows, warnings = _read(run, settings)
    private, public = {}, {}
    test = _read_public_test(run, settings)
    for name, all_units in partition(rows, settings, run.task, run.study.seed).items():
        units = shuffled(all_units, run.study.seed, name)[: settings.max_records]
        size = 0 if test else max(1, round(settings.test_fraction * len(units)))
        if len(units) - size < 2:
            raise InputError(
                f"institution {name!r} has {len(units)} records or groups, too few for training and a test share; "
                "use fewer institutions or more data"
            )
        public[name] = [row for unit in units[:size] for row in unit]
        private[name] = [row for unit in units[size:] for row in unit]
    return Institutions(private, test or public, tuple(warnings))


def _read(run: RunConfig, settings: SimulationSection) -> tuple[list[Record], list[str]]:
    of_file = {} if settings.data in SOURCES else numbered_rows(Path(settings.data))
    rows = list(of_file.values()) or SOURCES[settings.data]()
    columns = _columns(run, settings)
    if settings.by is not None:
        columns["institution"] = settings.by
    own = select(rows, columns, settings.data)
    return check_records(own, run.task, settings.max_chars, settings.data, list(of_file))


def _columns(run: RunConfig, settings: SimulationSection) -> dict[str, str]:
    known = (*run.task.fields(), "group")
    for name in settings.columns:
        if name not in known:
            raise InputError(f"simulation.columns.{name} is not a column of this task; it has: {', '.join(known)}")
    columns = {name: settings.columns.get(name, name) for name in run.task.fields()}
    if "group" in settings.columns:
        columns["group"] = settings.columns["group"]
    return columns


def _read_public_test(run: RunConfig, settings: SimulationSection) -> dict[str, list[Record]]:
    if run.evaluation.data is None:
        return {}
    records, _ = read_public(Path(run.evaluation.data), run.task, max_chars=settings.max_chars)
    return {"public": records}


def load_private(run: RunConfig) -> dict[str, list[Record]]:
    """Return private records by institution, as a federation loads them."""
    return load_institutions(run).private


def load_alone(name: str, run: RunConfig) -> dict[str, list[Record]]:
    """Return one institution's private records, for the local-only baseline."""
    return {name: load_private(run)[name]}


def load_pooled(run: RunConfig) -> dict[str, list[Record]]:
    """Return all private records as one institution, for the central baseline."""
    return {"central": [record for records in load_institutions(run).private.values() for record in records]}
