"""Lines of an institution's data file that no round would use, and a check that a run can use enough others.

The findings stay here. Only a person's commands ask for them, never an answer to a server: the labels that a server
chooses could count the classes that are present.
"""

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confide.client.config import DatasetSection
from confide.client.data.records import columns_of
from confide.common.config.run import RunConfig
from confide.common.data.records import Record, group_of, inspect_rows
from confide.common.durable import replace_durably
from confide.common.errors import ConfideError, InputError
from confide.common.shown import shown
from confide.common.tasks.task import Task

_answers = dict[str, str | None]()  # the last answer of `too_few_lines`
_ALIKE = 10  # lines that must share a reason before it is shown: a rarer one could quote a person


@dataclass(frozen=True)
class Lines:
    """Findings, line by line.

    Attributes:
        path: of the data.
        num_lines: number of records, or of lines that cannot be read; blank lines do not count.
        broken: number of a line -> reason why it cannot be read. No run is joined while a line is broken.
        unused: number of a line -> reason why it would contribute nothing, though it can be read.
        wasted: study -> number of readable lines that would contribute nothing to it, by reason.
        spread: number of a record's first line -> its number of lines, of records that have several (in CSV).
    """

    path: Path
    num_lines: int
    broken: dict[int, str]
    unused: dict[int, str]
    wasted: dict[str, Counter[str]] = field(default_factory=dict)
    spread: dict[int, int] = field(default_factory=dict)

    def too_few(self, least: float) -> list[str]:
        """List each study that could use less than the share ``least`` of the lines, with the commonest reason."""
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

    def several(self) -> str:
        """Return how many records go over several lines, as the end of a sentence; an open quote may make one of many.

        >>> Lines(Path("x.csv"), 9, {}, {}, spread={2: 3, 7: 40}).several()
        '; 2 records go over several lines, the longest over 40'
        """
        if not self.spread:
            return ""
        return f"; {len(self.spread)} records go over several lines, the longest over {max(self.spread.values())}"

    def _commonest(self, reasons: Counter[str]) -> str:
        why, count = max((("cannot be read", len(self.broken)), *reasons.items()), key=lambda reason: reason[1])
        return f"; most often ({count} lines): {why}" if count >= _ALIKE else ""

    def write(self, folder: Path) -> Path:
        """Write the report, which only its owner may read. Return its path."""
        folder.mkdir(exist_ok=True, mode=0o700)
        report = folder / "doctor.txt"
        lines = [f"{self.path}, {time.strftime('%Y-%m-%d %H:%M')}"]
        lines += [f"line {number} is broken: {why}" for number, why in self.broken.items()]
        lines += [f"line {number} would contribute nothing: {why}" for number, why in self.unused.items()]
        if self.spread:
            number = max(self.spread, key=lambda first: self.spread[first])
            lines.append(f"line {number} begins the longest record, of {self.spread[number]} lines")
        replace_durably(report, "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"), 0o600)
        return report


def check_lines(dataset: DatasetSection, runs: list[RunConfig], models: Path) -> Lines:
    """Check every line, as joining a run does and as the tasks of the runs on offer do.

    Args:
        dataset: of the institution.
        runs: on offer.
        models: the institution's folder of base models. Of some kinds the base's tokenizer is asked too.

    Raises:
        InputError: the file cannot be read at all, or is empty.
    """
    columns = {run.study.name: columns_of(dataset, run.task.fields()) for run in runs}
    columns = columns or {"": columns_of(dataset, sorted(dataset.columns.keys() or {"text"}))}
    broken, unused, spread, numbers = dict[int, str](), dict[int, str](), dict[int, int](), set[int]()
    wasted = {study: Counter[str]() for study in _studies(runs)}
    tokenizers = {run.study.name: _tokenizer(run, models) for run in runs}
    for number, row in inspect_rows(dataset.path):
        numbers.add(number)
        if isinstance(row, str):
            broken[number] = row
        elif all(lacking := [_lacking(row, own) for own in columns.values()]):
            broken[number] = str(lacking[0])
        elif reasons := _unused(row, columns, dataset, runs, tokenizers):
            unused[number] = next(f"study {study}: {why}" if study else why for study, why in reasons.items())
            for study, why in reasons.items():
                wasted[study][why] += 1
        if not isinstance(row, str) and (size := _num_lines(row, dataset.path)) > 1:
            spread[number] = size
    if not numbers:
        raise InputError(f"{dataset.path}: holds no records")
    return Lines(dataset.path, len(numbers), broken, unused, wasted, spread)


def _num_lines(row: Record, path: Path) -> int:
    """Return how many lines of a file a record has. Only a field of a CSV file holds line breaks as they are."""
    return 1 + sum(str(cell).count("\n") for cell in row.values()) if ".csv" in path.suffixes else 1


def too_few_lines(dataset: DatasetSection, runs: list[RunConfig], models: Path) -> str | None:
    """Return the reason to refuse runs that could use too few lines; None if each can use enough.

    A page asks this at each view, and a base that writes renders each record. So the last answer is kept until file,
    base, settings or runs change.

    Raises:
        InputError: the file cannot be read at all, or is empty.
    """
    state = [_state(place) for place in (dataset.path, *(_base(run, models) for run in runs))]
    key = f"{state} {dataset.model_dump_json()} {[run.sha256() for run in runs]}"
    if key in (known := dict(_answers)):
        return known[key]
    found = check_lines(dataset, runs, models).too_few(dataset.min_usable_fraction) if runs else []
    answer = f"{'; '.join(found)} (`confide client doctor` says why of each line)" if found else None
    _answers.clear()
    _answers[key] = answer
    return answer


def require_usable(dataset: DatasetSection, runs: list[RunConfig], models: Path) -> None:
    """Check that each run can use enough lines: otherwise it would be charged for noise about very few people.

    Raises:
        ConfideError: a run could use a smaller share than `min_usable_fraction`.
        InputError: the file cannot be read at all, or is empty.
    """
    if why := too_few_lines(dataset, runs, models):
        raise ConfideError(why)


def _studies(runs: list[RunConfig]) -> list[str]:
    """Return the names of the runs' studies, or the empty name if there is no run."""
    return [run.study.name for run in runs] or [""]


def _lacking(row: Record, columns: dict[str, str]) -> str | None:
    """Return the first of a run's columns that a row lacks, in words, or None."""
    column = next((column for column in columns.values() if column not in row), None)
    return f"no column {column!r}; it has: {shown(', '.join(map(repr, row)), 200)}" if column is not None else None


def _tokenizer(run: RunConfig, models: Path) -> Any:
    """Return the tokenizer of a run by which a record may teach nothing; None where the base is not here or unreadable.

    A chat template may refuse a record that the kind takes, and an answer may lie beyond the windows. `client doctor`
    speaks of a base that is not here.
    """
    all_teach = type(run.task).why_no_example is Task.why_no_example
    folder = None if all_teach else _base(run, models)
    if folder is None:
        return None
    from confide.common.model.base_models import load_tokenizer, loading

    try:
        with loading(folder) as visible:
            return load_tokenizer(visible)
    except (ConfideError, OSError):
        return None


def _base(run: RunConfig, models: Path) -> Path | None:
    """Return the folder of a run's base; None if it is not here."""
    from confide.common.model.base_models import find_model

    try:
        return find_model(run.at(run.model.base), models)
    except (ConfideError, OSError):  # a server may name anything
        return None


def _state(place: Path | None) -> list[tuple[str, int, int]]:
    """Return names, times and sizes of a file, or of a folder's files: they differ after a change."""
    try:
        parts = sorted(place.iterdir()) if place and place.is_dir() else [place] if place else []
        return [(str(part), part.stat().st_mtime_ns, part.stat().st_size) for part in parts]
    except OSError:  # reading the data says so
        return []


def _unused(
    row: Record,
    columns: dict[str, dict[str, str]],
    dataset: DatasetSection,
    runs: list[RunConfig],
    tokenizers: dict[str, Any],
) -> dict[str, str]:
    """Return the reasons why a row would contribute nothing, by study; the empty name stands for any study."""
    group = next(iter(columns.values())).get("group")
    if group is not None and group in row and group_of({"group": row[group]}) is None:
        return dict.fromkeys(_studies(runs), f"no group in column {group!r}")
    found = dict[str, str | None]()
    for run in runs:
        name = run.study.name
        found[name] = _why_unused(row, columns[name], dataset, run, tokenizers[name])
    return {study: why for study, why in found.items() if why}


def _why_unused(
    row: Record, columns: dict[str, str], dataset: DatasetSection, run: RunConfig, tokenizer: Any
) -> str | None:
    """Return the reason why a row would contribute nothing to a run, or None."""
    if lacking := _lacking(row, columns):
        return lacking
    own = {name: row[column] for name, column in columns.items()}
    record = run.task.cut(run.task.translate(own, dataset.labels), dataset.max_chars)
    problem = run.task.check(record)
    return problem if problem or tokenizer is None else run.task.why_no_example(record, tokenizer)
