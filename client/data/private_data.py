"""The one object through which an institution's records can be read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from confide.client.config import DatasetSection
from confide.client.data.dataset_claims import Claims
from confide.common.data.records import Record
from confide.common.tasks import Task


def _all_is_well(task: Task) -> None:
    """Find nothing: there is no file."""


@dataclass(frozen=True)
class PrivateData:
    """The records of a dataset, and everything that is made of them or names them.

    A function that is not given this cannot see a record: its signature says so.

    Attributes:
        dataset: `[dataset]` of site.toml.
        records: reads the private records of a task.
        secret: 32 bytes that never leave; keys the names of units.
        claims: of this state folder's datasets on people.
        cache: folder on a local disk for what is kept of private texts while a run lasts.
        check_file: raises for a file with a broken line; a simulation checked its records before.
    """

    dataset: DatasetSection
    records: Callable[[Task], list[Record]]
    secret: bytes
    claims: Claims
    cache: Path
    check_file: Callable[[Task], None] = _all_is_well
