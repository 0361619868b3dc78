"""An institution's private records, in our columns and the study's labels."""

from collections.abc import Iterable

from confide.client.config import DatasetSection
from confide.common.data.records import Record, read_rows, read_usable_rows, select
from confide.common.tasks import Task


def read_records(dataset: DatasetSection, task: Task) -> list[Record]:
    """The records of a dataset in our columns and the study's labels, whole.

    A record that is broken is left out, and one that the task cannot use stays out of its unit, both in silence: an
    error here would answer the server (with the labels of a study it could ask which classes are present).

    Raises:
        InputError: the file cannot be read at all.
    """
    names = columns_of(dataset, task.fields())
    whole = [row for row in read_usable_rows(dataset.path) if row.keys() >= set(names.values())]
    rows = ({name: row[column] for name, column in names.items()} for row in whole)
    return [task.translate(row, dataset.labels) for row in rows]


def check_file(dataset: DatasetSection, task: Task) -> None:
    """Check that every line of a dataset's file is a record with its columns: before a run is joined, never after.

    Raises:
        InputError: a line or a column that is not there, by its number.
    """
    select(read_rows(dataset.path), columns_of(dataset, task.fields()), str(dataset.path))


def columns_of(dataset: DatasetSection, fields: Iterable[str]) -> dict[str, str]:
    """The file's column for each field of a task, and for the group where groups are what is protected."""
    names = {name: dataset.columns.get(name, name) for name in fields}
    return {**names, "group": dataset.columns["group"]} if dataset.unit == "group" else names
