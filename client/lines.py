"""Lines of an institution's data file that no round would use, for `confide client doctor`: they stay here."""

import time
from dataclasses import dataclass
from pathlib import Path

from confide.client.site_config import DatasetSection, columns_of, translate
from confide.common.durable import replace_durably
from confide.common.errors import InputError
from confide.common.records import Row, cut, group_of, inspect_rows
from confide.common.run_config import RunConfig


@dataclass(frozen=True)
class Lines:
    """What was found, line by line.

    Attributes:
        path: of the data.
        num_lines: that are not blank.
        broken: number -> why a line cannot be read: while one is there, no run is joined.
        unused: number -> why a line that can be read would contribute nothing.
    """

    path: Path
    num_lines: int
    broken: dict[int, str]
    unused: dict[int, str]

    def write(self, folder: Path) -> Path:
        """The report, which only its owner may read."""
        folder.mkdir(exist_ok=True, mode=0o700)
        report = folder / "doctor.txt"
        lines = [f"{self.path}, {time.strftime('%Y-%m-%d %H:%M')}"]
        lines += [f"line {number} is broken: {why}" for number, why in self.broken.items()]
        lines += [f"line {number} would contribute nothing: {why}" for number, why in self.unused.items()]
        replace_durably(report, "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"), 0o600)
        return report


def check_lines(dataset: DatasetSection, runs: list[RunConfig]) -> Lines:
    """Look at every line: as a run is joined, and as the tasks of the runs on offer use it.

    Raises:
        InputError: the file cannot be read at all, or is empty.
    """
    names = {name for run in runs for name in run.task.fields()} or dataset.columns.keys() or {"text"}
    columns = columns_of(dataset, sorted(names))
    num_lines, broken, unused = 0, dict[int, str](), dict[int, str]()
    for number, row in inspect_rows(dataset.path):
        num_lines += 1
        if isinstance(row, str):
            broken[number] = row
        elif lacking := [column for column in columns.values() if column not in row]:
            broken[number] = f"no column {lacking[0]!r}; it has: {', '.join(map(repr, row))}"
        elif why := _unused(row, columns, dataset, runs):
            unused[number] = why
    if num_lines == 0:
        raise InputError(f"{dataset.path}: holds no records")
    return Lines(dataset.path, num_lines, broken, unused)


def _unused(row: Row, columns: dict[str, str], dataset: DatasetSection, runs: list[RunConfig]) -> str | None:
    """Why a row would contribute nothing to a run on offer, or to any."""
    record = cut({name: row[column] for name, column in columns.items()}, dataset.max_chars)
    record["label"] = translate(record.get("label"), dataset.labels)
    if "group" in record and group_of(record) is None:
        return f"no group in column {columns['group']!r}"
    for run in runs:
        if why := run.task.check(record):
            return f"study {run.study.name}: {why}"
    return None
