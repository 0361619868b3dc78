"""The partition of a table of records into institutions. Records of one group always stay together."""

import hashlib
import math
import warnings
from typing import Any

from numpy.random import PCG64, Generator

from confide.common.config.simulation import SimulationSection
from confide.common.data.records import Record, group_of
from confide.common.errors import InputError
from confide.common.tasks import Task

_MAX_NAME = 64  # characters of an institution's name
_MIN_UNITS = 3  # of an institution: training and a test share


def gather(rows: list[Record]) -> list[list[Record]]:
    """Return rows as units: rows of one "group" together, others alone, in the order of the file."""
    units: dict[Any, list[Record]] = {}
    for number, row in enumerate(rows):
        group = group_of(row) if "group" in row else None
        units.setdefault(number if group is None else group, []).append(row)
    return list(units.values())


def shuffled(units: list[list[Record]], seed: int, name: str) -> list[list[Record]]:
    """Return units in an order that the public seed and a name decide."""
    stream = Generator(PCG64([seed, *hashlib.sha256(name.encode()).digest()]))
    return [units[index] for index in stream.permutation(len(units))]


def partition(rows: list[Record], settings: SimulationSection, task: Task, seed: int) -> dict[str, list[list[Record]]]:
    """Return units by institution.

    Raises:
        InputError: the records are too few, or a name cannot be an institution's.
    """
    if settings.partition == "natural":
        return _natural(rows, settings)
    names = numbered_names(settings.clients)
    units, num = gather(rows), len(names)
    if num * _MIN_UNITS > len(units):
        raise InputError(
            f"{settings.data}: {len(units)} records or groups are too few for {num} institutions; use --clients N"
        )
    import datasets

    # Flower's partitioners need label names as values; the index leads back to the unit.
    labels = [task.stratum(unit[0]) for unit in units]
    if settings.partition == "dirichlet" and not any(labels):
        raise InputError("simulation.partition = 'dirichlet' skews labels, which this kind of task lacks; use another")
    table = datasets.Dataset.from_dict({"index": list(range(len(units))), "label": labels}).shuffle(seed=seed)
    partitioner = _partitioner(settings, num, len(units), seed)
    partitioner.dataset = table
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # each failed draw of a Dirichlet partition warns
            parts = [partitioner.load_partition(index)["index"] for index in range(num)]
    except ValueError:
        raise InputError(
            f"simulation.partition = {settings.partition!r} with alpha = {settings.alpha} and {num} institutions "
            f"cannot be made from {len(units)} records or groups; use fewer institutions or another alpha"
        ) from None
    return {name: [units[index] for index in part] for name, part in zip(names, parts, strict=True)}


def numbered_names(clients: int | None) -> list[str]:
    """Return the names of so many institutions that no data name, of four if None.

    >>> numbered_names(2)
    ['institution-1', 'institution-2']
    """
    num = clients or 4
    width = len(str(num))
    return [f"institution-{number:0{width}d}" for number in range(1, num + 1)]


def _partitioner(settings: SimulationSection, num: int, num_units: int, seed: int) -> Any:
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner, SizePartitioner

    if settings.partition == "dirichlet":
        return DirichletPartitioner(num, "label", settings.alpha, min_partition_size=_MIN_UNITS, seed=seed)
    if settings.partition == "power-law":
        shares = [rank**-settings.alpha for rank in range(1, num + 1)]
        free = num_units - _MIN_UNITS * num
        sizes = [_MIN_UNITS + math.floor(free * share / sum(shares)) for share in shares]
        sizes[0] += num_units - sum(sizes)
        return SizePartitioner(sizes)
    return IidPartitioner(num)


def _natural(rows: list[Record], settings: SimulationSection) -> dict[str, list[list[Record]]]:
    found: dict[str, list[Record]] = {}
    for number, row in enumerate(rows, start=1):
        record = dict(row)
        name = record.pop("institution")
        if name is None or not str(name).strip() or len(str(name)) > _MAX_NAME:
            raise InputError(
                f"{settings.data}: record {number}: {settings.by!r} is {name!r}, must name an institution in 1 to "
                f"{_MAX_NAME} characters; mend the record or remove it"
            )
        found.setdefault(str(name), []).append(record)
    if settings.clients not in (None, len(found)):
        raise InputError(
            f"--clients {settings.clients} (simulation.clients), but column {settings.by!r} names {len(found)} "
            "institutions; leave it out, or use another partition"
        )
    return {name: gather(found[name]) for name in sorted(found)}
