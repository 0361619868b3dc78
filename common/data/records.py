"""A file of texts as checked records: JSONL, CSV, Parquet or a saved dataset."""

import csv
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from confide.common.config.places import is_saved_dataset
from confide.common.data.tables import inspect_parquet, inspect_saved_dataset
from confide.common.errors import InputError
from confide.common.tasks import Task

Record = dict[str, Any]
MAX_CHARS = 20_000  # of a text, unless a configuration says otherwise
_OTHER_DELIMITERS = (";", "\t", "|")
_NOT_UTF8 = "not UTF-8; convert the file, for example with iconv -t UTF-8"


def read_rows(path: Path) -> list[Record]:
    """All rows of a file, by its ending (.jsonl, .csv, .parquet), or of a saved dataset's folder.

    Raises:
        InputError: absent, unreadable, not UTF-8, malformed (with the line's number) or empty.
    """
    rows = []
    for number, row in inspect_rows(path):
        if isinstance(row, str):
            raise InputError(f"{path}:{number}: {row}")
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: holds no records")
    return rows


def inspect_rows(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Every line of a file that is not blank, by its number (of a table: every row): a row, or what is wrong with it.

    Raises:
        InputError: absent, unreadable, or no .jsonl, .csv, .parquet or saved dataset.
    """
    readers = {".jsonl": _inspect_jsonl, ".csv": _inspect_csv, ".parquet": inspect_parquet}
    reader = inspect_saved_dataset if is_saved_dataset(path) else readers.get(path.suffix)
    if reader is None:
        kind = "no folder that Dataset.save_to_disk made; its" if path.is_dir() else "its"
        raise InputError(f"{path}: {kind} ending {path.suffix!r} must be one of {', '.join(readers)}")
    try:
        yield from reader(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_usable_rows(path: Path) -> list[Record]:
    """The rows of a file that `read_rows` would take, each for itself; broken ones are passed over in silence.

    For a client after it has joined a run: then no line of the file may decide whether a round is answered.

    Raises:
        InputError: the file cannot be read at all, or is no .jsonl, .csv, .parquet or saved dataset.
    """
    return [row for _, row in inspect_rows(path) if not isinstance(row, str)]


def _numbered_lines(path: Path) -> Iterator[tuple[int, str | None]]:
    """Lines that are not blank, by their number; None for one that is not UTF-8."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            yield number, None
        else:
            if text.strip():
                yield number, text


def _inspect_jsonl(path: Path) -> Iterator[tuple[int, Record | str]]:
    for number, line in _numbered_lines(path):
        yield number, _NOT_UTF8 if line is None else _jsonl_row(line)


class _TwiceError(ValueError):
    """An object with two values of one name."""


def _distinct(pairs: list[tuple[str, Any]]) -> Record:
    row = dict[str, Any]()
    for name, value in pairs:
        if name in row:
            raise _TwiceError(name)
        row[name] = value
    return row


def _jsonl_row(line: str) -> Record | str:
    try:
        row = json.loads(line, object_pairs_hook=_distinct)
    except _TwiceError as error:
        return f"two values are called {str(error)!r}; remove one"
    except (ValueError, RecursionError):
        return "not a line of JSON; each line must be one JSON object"
    if not isinstance(row, dict):
        return f"a JSON {type(row).__name__}, must be an object with named columns"
    return row


def _inspect_csv(path: Path) -> Iterator[tuple[int, Record | str]]:
    csv.field_size_limit(sys.maxsize)
    header: list[str] | None = None
    for number, line in _numbered_lines(path):
        cells = _NOT_UTF8 if line is None else _csv_cells(line)
        if header is None:
            problem = _header_problem(line or "", cells)
            if isinstance(cells, str) or problem:
                yield number, f"{problem}; without its header no line can be read"
                return
            header = cells
        elif isinstance(cells, str):
            yield number, cells
        elif len(cells) != len(header):
            yield number, f"{len(cells)} cells, but the header has {len(header)}; quote commas in texts"
        else:
            yield number, dict(zip(header, cells, strict=True))


def _csv_cells(line: str) -> list[str] | str:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        if "expected after" in str(error):
            return "text after a closing quote; write a quote inside of a field twice"
        return "a quote that is never closed on its line; fields must not hold line breaks"


def _delimiter(line: str) -> str | None:
    """Return the sign that separates the cells of a header, where it is no comma."""
    for delimiter in _OTHER_DELIMITERS:
        try:
            cells = next(csv.reader([line], delimiter=delimiter, strict=True))
        except csv.Error:
            continue
        if len(cells) > 1:
            return delimiter
    return None


def _header_problem(line: str, header: list[str] | str) -> str | None:
    if (isinstance(header, str) or len(header) == 1) and (found := _delimiter(line)):
        return f"its columns are separated by {found!r}, must be by ','; save it again with commas, or as .jsonl"
    if isinstance(header, str):
        return header
    twice = [column for column in header if header.count(column) > 1]
    return f"two columns are called {twice[0]!r}; rename one" if twice else None


def select(rows: list[Record], columns: Mapping[str, str], source: str) -> list[Record]:
    """Rows with their columns renamed to ours: ``columns`` maps our name to the file's.

    Raises:
        InputError: a column that no row, or not every row, has; the message names the row and lists what is there.
    """
    for number, row in enumerate(rows, start=1):
        for name, column in columns.items():
            if column not in row:
                raise InputError(
                    f"{source}: record {number} has no column {column!r} (our {name!r}); "
                    f"it has: {', '.join(map(repr, row))}"
                )
    return [{name: row[column] for name, column in columns.items()} for row in rows]


def group_of(row: Record) -> str | None:
    """A row's group as text; None where it has none: null, NaN, nothing but blanks, or nested too deep for JSON.

    17, 17.0 and "17" are one patient, and so are two objects with the same parts in another order.
    """
    group = row["group"]
    if group is None or group != group:  # noqa: PLR0124 - NaN alone differs from itself
        return None
    if isinstance(group, dict | list):
        return _nested(group)
    text = str(int(group)) if isinstance(group, float) and group.is_integer() else str(group)
    return text if text.strip() else None


def _nested(group: Any) -> str | None:
    try:
        plain = json.loads(json.dumps(group, default=str), parse_float=_number)
        return json.dumps(plain, sort_keys=True)
    except RecursionError:
        return None


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number


def check_records(rows: list[Record], task: Task, max_chars: int, source: str) -> tuple[list[Record], list[str]]:
    """Records whose texts are cut to ``max_chars``, and the warnings for the user.

    Raises:
        InputError: the first record that the task cannot use, by number, with value, rule and remedy.
    """
    records, num_cut = [], 0
    for number, row in enumerate(rows, start=1):
        record = task.cut(row, max_chars)
        num_cut += record != row
        problem = task.check(record)
        if problem:
            raise InputError(f"{source}: record {number}: {problem}")
        records.append(record)
    warnings = [f"{source}: {num_cut} texts are longer than {max_chars} characters and were cut"] if num_cut else []
    return records, warnings


def read_public(
    path: Path, task: Task, columns: Mapping[str, str] | None = None, max_chars: int = MAX_CHARS
) -> tuple[list[Record], list[str]]:
    """Checked records of a public file, and the warnings for the user; ``columns`` maps our names to the file's.

    Raises:
        InputError: the file cannot be read, or has a record that the task cannot use.
    """
    names = {name: (columns or {}).get(name, name) for name in task.fields()}
    return check_records(select(read_rows(path), names, str(path)), task, max_chars, str(path))
