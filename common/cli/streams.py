"""Lines as they arrive, and the records that they hold: for predictions that begin before the input ends.

A table (CSV, Parquet, a saved dataset) is read whole first. Its rows are treated as the lines of a .jsonl file.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from io import BufferedReader
from itertools import chain, tee
from pathlib import Path
from typing import Any, cast

from confide.common.data.lines import not_utf8
from confide.common.data.records import absent_column, read_rows
from confide.common.errors import InputError

_BYTES = 1 << 16  # at most so many are waited for at once
_ROWS = 500  # of a table that are predicted at once


def arriving(file: Path) -> Iterator[list[bytes]]:
    """Open a file (``-``: standard input), and yield its lines without their ends, as many at a time as have arrived.

    Raises:
        InputError: the file cannot be opened, at once; or read, later.
    """
    try:
        stream = _standard_input() if str(file) == "-" else file.open("rb")
    except OSError as error:
        raise _unreadable(file, error) from None
    return _read(file, stream)


def is_table(file: Path) -> bool:
    """Return whether a file is read as `evaluate` reads it, and not line by line."""
    return file.is_dir() or file.name.endswith((".csv", ".tsv", ".gz", ".parquet"))


def rows_of(file: Path) -> Iterator[list[bytes]]:
    """Read a table at once, and yield its rows as lines of JSON, some hundreds at a time.

    Raises:
        InputError: the file cannot be read, or a row has no right form; the message names it.
    """
    lines = [json.dumps(row, default=str).encode() for row in read_rows(file)]
    return (lines[first : first + _ROWS] for first in range(0, len(lines), _ROWS))


def _standard_input() -> BufferedReader:
    if sys.stdin is None:  # closed by whoever started this process
        raise InputError("--file -: there is no standard input; name a file, or pipe one in")
    return cast("BufferedReader", sys.stdin.buffer)


def _unreadable(file: Path, error: OSError) -> InputError:
    return InputError(f"--file {file}: cannot be read: {error.strerror}")


def _read(file: Path, opened: BufferedReader) -> Iterator[list[bytes]]:
    try:
        with opened as stream:
            yield from _lines(stream)
    except OSError as error:
        raise _unreadable(file, error) from None


def _lines(stream: BufferedReader) -> Iterator[list[bytes]]:
    begun, first = list[bytes](), True  # parts of a line that has not ended: joined once, for it may be of any length
    while part := stream.read1(_BYTES):
        if first:
            part, first = part.removeprefix(b"\xef\xbb\xbf"), False
        *whole, rest = part.split(b"\n")
        if whole:
            whole[0] = b"".join([*begun, whole[0]])
            begun = []
            yield [line.removesuffix(b"\r") for line in whole]
        begun.append(rest)
    if last := b"".join(begun):
        yield [last]


def text_of(line: bytes, number: int) -> str:
    """Return a line as text; `InputError` names its number if it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"text {number} is {not_utf8(line)}") from None


def record_of(line: bytes, number: int, columns: Mapping[str, str]) -> dict[str, Any]:
    """Return the record of a line of JSON; `InputError` names the number and the fault of a line that holds none.

    Args:
        line: of a file.
        number: of the line.
        columns: of the file that the record must have, by our names for them.
    """
    record = _object(text_of(line, number))
    if record is None:
        needed = ", ".join(columns.values())
        raise InputError(f"record {number} is no JSON object; write one on each line, with {needed}")
    if wrong := absent_column(record, columns, number, "--columns"):
        raise InputError(wrong)
    return record


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def require_columns(file: Path, parts: Iterator[list[bytes]], columns: Mapping[str, str]) -> Iterator[list[bytes]]:
    """Return the lines of a file as they are. It is read up to the first record that has the columns.

    Raises:
        InputError: no record of the file has them, which is told once and not for each line.
    """
    read, parts = tee(parts)
    wrong = ""
    for number, line in enumerate(chain.from_iterable(read), start=1):
        record = _object(line.decode("utf-8", errors="replace"))
        absent = record is not None and absent_column(record, columns, number, "--columns")
        if record is not None and not absent:
            break
        wrong = wrong or absent or ""
    else:
        if wrong:
            raise InputError(f"{file}: no record can be predicted: {wrong}")
    return parts
