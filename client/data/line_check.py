"""Lines of an institution's data file that no round would use, and whether a run finds enough others.

What is found stays here: it is asked by a person's commands alone, never for an answer to a server, whose labels could
count the classes that are present.
"""

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from confide.client.config import DatasetSection
from confide.client.data.records import columns_of, translate
from confide.common.config.run import RunConfig
from confide.common.data.records import Row, cut, group_of, inspect_rows
from confide.common.durable import replace_durably
from confide.common.errors import ConfideError, InputError

_ALIKE = 10  # lines that have a reason in common: it may be shown, for a rarer one could quote a person


@dataclass(frozen=True)
class Lines:
    """What was found, line by line.

    Attributes:
        path: of the data.
        num_lines: that are not blank.
        broken: number -> why a line cannot be read: while one is there, no run is joined.
        unused: number -> why a line that can be read would contribute nothing.
        wasted: study -> how many of its lines that can be read would contribute nothing to it, by reason.
    """

    path: Path
    num_lines: int
    broken: dict[int, str]
    unused: dict[int, str]
    wasted: dict[str, Counter[str]] = field(default_factory=dict)

    def too_few(self, least: float) -> list[str]:
        """Each study that could use less than the share ``least`` of the lines: its share, and the commonest reason."""
        found = []
        for study, reasons in self.wasted.items():
            usable = self.num_lines - len(self.broken) - reasons.total()
            if usable < least * self.num_lines:
                found.append(
                    f"{f'study {study}' if study else 'any study'} could use {usable} of {self.num_lines} lines "
                    f"({math.floor(100 * usable / self.num_lines)} %), dataset.min_usable_fraction = {least:g}"
                    f"{self._commonest(reasons)}; mend the lines, or map their codes with [dataset] labels"
                )
        return found

    def _commonest(self, reasons: Counter[str]) -> str:
        why, count = max((("cannot be read", len(self.broken)), *reasons.items()), key=lambda reason: reason[1])
        return f"; most often ({count} lines): {why}" if count >= _ALIKE else ""

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
    wasted = {study: Counter[str]() for study in _studies(runs)}
    for number, row in inspect_rows(dataset.path):
        num_lines += 1
        if isinstance(row, str):
            broken[number] = row
        elif lacking := [column for column in columns.values() if column not in row]:
            broken[number] = f"no column {lacking[0]!r}; it has: {', '.join(map(repr, row))}"
        elif reasons := _unused(row, columns, dataset, runs):
            unused[number] = next(f"study {study}: {why}" if study else why for study, why in reasons.items())
            for study, why in reasons.items():
                wasted[study][why] += 1
    if num_lines == 0:
        raise InputError(f"{dataset.path}: holds no records")
    return Lines(dataset.path, num_lines, broken, unused, wasted)


def too_few_lines(dataset: DatasetSection, runs: list[RunConfig]) -> str | None:
    """Why runs are refused that could use too few of the lines; None where each can use enough.

    Raises:
        InputError: the file cannot be read at all, or is empty.
    """
    found = check_lines(dataset, runs).too_few(dataset.min_usable_fraction) if runs else []
    return f"{'; '.join(found)} (`confide client doctor` says why of each line)" if found else None


def require_usable(dataset: DatasetSection, runs: list[RunConfig]) -> None:
    """See that each run can use enough of the lines: else it would be charged for noise about next to nobody.

    Raises:
        ConfideError: a run could use a smaller share than `min_usable_fraction`.
        InputError: the file cannot be read at all, or is empty.
    """
    if why := too_few_lines(dataset, runs):
        raise ConfideError(why)


def _studies(runs: list[RunConfig]) -> list[str]:
    """Names of the runs' studies; the empty one where there is no run."""
    return [run.study.name for run in runs] or [""]


def _unused(row: Row, columns: dict[str, str], dataset: DatasetSection, runs: list[RunConfig]) -> dict[str, str]:
    """Why a row would contribute nothing, by study: to a run on offer, or to any."""
    record = cut({name: row[column] for name, column in columns.items()}, dataset.max_chars)
    record["label"] = translate(record.get("label"), dataset.labels)
    if "group" in record and group_of(record) is None:
        return dict.fromkeys(_studies(runs), f"no group in column {columns['group']!r}")
    return {run.study.name: why for run in runs if (why := run.task.check(record))}
