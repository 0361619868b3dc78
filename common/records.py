"""A file of texts as checked records: JSONL, CSV or Parquet."""

import csv
import functools
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from confide.common.errors import InputError
from confide.common.tasks import Task

Row = dict[str, Any]
MAX_CHARS = 20_000  # of a text, unless a configuration says otherwise


def read_rows(path: Path) -> list[Row]:
    """All rows of a file, by its ending: .jsonl, .csv or .parquet.

    Raises:
        InputError: absent, unreadable, not UTF-8, malformed (with the line's number) or empty.
    """
    readers = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise InputError(f"{path}: ending {path.suffix!r} must be one of {', '.join(readers)}")
    try:
        rows = list(readers[path.suffix](path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8; convert the file, for example with iconv -t UTF-8") from None
    if not rows:
        raise InputError(f"{path}: holds no records")
    return rows


def read_usable_rows(path: Path) -> list[Row]:
    """Rows of a file that can be read, each for itself; what is broken is passed over in silence.

    For a client after it has joined a run: then no line of the file may decide whether a round is answered.

    Raises:
        InputError: the file cannot be read at all, or is no .jsonl, .csv or .parquet.
    """
    if path.suffix not in (".jsonl", ".csv"):
        return read_rows(path)
    try:
        lines = path.read_bytes().replace(b"\r", b"\n").split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    texts = [line.decode("utf-8-sig", errors="replace").rstrip("\r") for line in lines]
    texts = [text for text in texts if text.strip()]
    if path.suffix == ".jsonl":
        rows = map(_parse_jsonl, texts)
    else:
        csv.field_size_limit(sys.maxsize)
        rows = map(functools.partial(_parse_csv, "".join(texts[:1])), texts[1:])
    return [row for row in rows if row is not None]


def _parse_jsonl(text: str) -> Row | None:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _parse_csv(header: str, text: str) -> Row | None:
    try:
        names, cells = next(csv.reader([header], strict=True)), next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration):
        return None
    return dict(zip(names, cells, strict=True)) if len(names) == len(cells) else None


def _read_jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{path}:{number}: not a line of JSON; each line must be one JSON object") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: a JSON {type(row).__name__}, must be an object with named columns")
        yield row


def _read_csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    header: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            cells = next(csv.reader([line.rstrip("\r")], strict=True))
        except csv.Error:
            raise InputError(
                f"{path}:{number}: a quote that is never closed on its line; fields must not hold line breaks"
            ) from None
        if not header:
            header = cells
            for column in header:
                if header.count(column) > 1:
                    raise InputError(f"{path}:{number}: two columns are called {column!r}; rename one")
        elif len(cells) != len(header):
            raise InputError(
                f"{path}:{number}: {len(cells)} cells, but the header has {len(header)}; quote commas in texts"
            )
        else:
            yield dict(zip(header, cells, strict=True))


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid:
        raise InputError(f"{path}: not a Parquet file; write it again or use .jsonl") from None
    yield from rows


def select(rows: list[Row], columns: Mapping[str, str], source: str) -> list[Row]:
    """Rows with their columns renamed to ours: ``columns`` maps our name to the file's.

    Raises:
        InputError: a column that no row, or not every row, has; the message names the row and lists what is there.
    """
    for number, row in enumerate(rows, start=1):
        for name, column in columns.items():
            if column not in row:
                raise InputError(
                    f"{source}: record {number} has no column {column!r} (our {name!r}); "
                    f"it has: {', '.join(map(str, row))}"
                )
    return [{name: row[column] for name, column in columns.items()} for row in rows]


def cut(row: Row, max_chars: int) -> Row:
    """A row with its texts cut."""
    return {key: value[:max_chars] if isinstance(value, str) else value for key, value in row.items()}


def check_records(rows: list[Row], task: Task, max_chars: int, source: str) -> tuple[list[Row], list[str]]:
    """Records whose texts are cut to ``max_chars``, and the warnings for the user.

    Raises:
        InputError: the first record that the task cannot use, by number, with value, rule and remedy.
    """
    records, num_cut = [], 0
    for number, row in enumerate(rows, start=1):
        record = cut(row, max_chars)
        num_cut += any(isinstance(value, str) and len(value) > max_chars for value in row.values())
        problem = task.check(record)
        if problem:
            raise InputError(f"{source}: record {number}: {problem}")
        records.append(record)
    warnings = [f"{source}: {num_cut} texts are longer than {max_chars} characters and were cut"] if num_cut else []
    return records, warnings
