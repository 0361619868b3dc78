"""Files of lines: JSONL, CSV and TSV, each also packed by gzip.

A record is read from its own lines alone. In JSONL and TSV it has one line. In CSV a field in quotes may hold line
breaks: a line with an odd number of quotes begins a record, and the next such line ends it. The record counts if it
is CSV to the letter and as wide as the header. Else its first line alone is lost, and reading goes on with the next
one. So an open quote costs no other record, unless the quotes of another close it to the letter.
"""

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from confide.common.errors import InputError

Record = dict[str, Any]
_NOT_UTF8 = "not UTF-8; in Excel save it as 'CSV UTF-8', or type: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW"
_UTF16 = "not UTF-8 but UTF-16; in Excel save it as 'CSV UTF-8', or type: iconv -f UTF-16 -t UTF-8 OLD > NEW"
_AFTER_QUOTE = "text after a closing quote; write a quote inside of a field twice"
_OPEN = "a quote that is never closed; write a quote inside of a field twice, and the field in quotes"
_OPEN_ON_ITS_LINE = "a quote that is never closed on its line; a .tsv has one line for each record: use .csv or .jsonl"
_DOUBTFUL = (
    "a quote opens a field of several lines here, but each of them may be a record of its own, for all lines of the "
    "file have equally many commas; save it again as .jsonl"
)
_SIGNS = {",": "commas", "\t": "tabs"}
_RENAME = {(",", "\t"): "let its name end with .tsv", ("\t", ","): "let its name end with .csv"}
# Excel separates by the sign that its country sets, and cannot be told another.
_SEPARATE_ANEW = (
    "type: python -c \"import pandas; pandas.read_csv('OLD', sep={!r}, dtype=str, keep_default_na=False)"
    ".to_csv('NEW.csv', index=False)\""
)
# A gzip file may unpack to so many times its size, and in any case to so many bytes. Texts that were tried unpack to
# 4 to 10 times theirs.
_MAX_TIMES, _SMALL = 100, 2**26


def inspect_jsonl(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Yield every line that is not blank with its number: an object, or the fault of the line."""
    lines = _lines(path)
    for number, line in enumerate(lines, start=1):
        text = _decoded(line)
        if text is None:
            yield number, not_utf8(lines[0])
        elif text.strip():
            row = _jsonl_row(text)
            yield number, _UTF16 if isinstance(row, str) and _is_utf16(lines[0]) else row


def inspect_csv(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Yield every record of a CSV file with the number of its first line: a row, or the fault of that line.

    One more fault comes last if the file may have been written without regard to quotes, so that what looks like lines
    of one record may be the records of several people: there are such lines, and all lines have equally many commas.
    A fault keeps an institution from joining. In a round it decides about no row.
    """
    lines = _lines(path)
    odd = [number for number, line in enumerate(lines) if line.count(b'"') % 2]
    last, doubtful = dict(zip_longest(odd, odd[1:])), 0
    for number, row in _inspect_table(lines, last, ","):
        yield number, row
        end = last.get(number - 1)
        if not doubtful and end and not isinstance(row, str) and any(map(bytes.strip, lines[number:end])):
            doubtful = number
    if doubtful and len({line.count(b",") for line in lines if line.strip()}) == 1:
        yield doubtful, _DOUBTFUL


def inspect_tsv(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Yield every line of a TSV file with its number: a row, or the fault of the line.

    No record goes over several lines. Most programs write a quote in a TSV as it is, so two records of which one begins
    and one ends with a quote are usual there; together they would look like one.
    """
    yield from _inspect_table(_lines(path), {}, "\t")


def _lines(path: Path) -> list[bytes]:
    content = _unpacked(path) if path.suffix == ".gz" else path.read_bytes()
    return content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")


def _unpacked(path: Path) -> bytes:
    most = max(_SMALL, _MAX_TIMES * path.stat().st_size)
    parts, size = list[bytes](), 0
    try:
        with gzip.open(path) as file:
            while part := file.read(2**20):
                parts.append(part)
                size += len(part)
                if size > most:
                    raise InputError(
                        f"{path}: unpacks to more than {_MAX_TIMES} times its size; if that is right, unpack it with "
                        "gunzip and name the unpacked file"
                    )
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{path}: not a whole gzip file; copy it again, or pack it again with gzip") from None
    return b"".join(parts)


def not_utf8(begin: bytes) -> str:
    """Return the fault and the remedy of bytes that are not UTF-8, by those with which the file begins."""
    return _UTF16 if _is_utf16(begin) else _NOT_UTF8


def _is_utf16(begin: bytes) -> bool:
    return begin.startswith((b"\xff\xfe", b"\xfe\xff"))


def _decoded(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


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
        return f"two values are called {str(error)!r:.60}; remove one"
    except (ValueError, RecursionError):
        return "not a line of JSON; each line must be one JSON object"
    if not isinstance(row, dict):
        return f"a JSON {type(row).__name__}, must be an object with named columns"
    return row


def _inspect_table(
    lines: list[bytes], last: Mapping[int, int | None], delimiter: str
) -> Iterator[tuple[int, Record | str]]:
    csv.field_size_limit(sys.maxsize)
    header, begin = list[str](), 0
    while begin < len(lines):
        size, cells = _record(lines, begin, last, delimiter, len(header))
        if not header and (problem := _header_problem(lines, begin, cells, delimiter)):
            yield begin + 1, f"{problem}; without its header no line can be read"
            return
        if header and cells:
            yield begin + 1, cells if isinstance(cells, str) else dict(zip(header, cells, strict=True))
        header = header or list(cells)
        begin += size


def _record(
    lines: list[bytes], begin: int, last: Mapping[int, int | None], delimiter: str, width: int
) -> tuple[int, list[str] | str]:
    """Return how many lines a record has, and its cells (none of a blank line) or its fault.

    Args:
        lines: of the file.
        begin: the record's first line.
        last: of each line that leaves a quote open, the line that closes it, or None.
        delimiter: the sign between cells.
        width: cells of the header; 0 of the header itself.
    """
    end = last.get(begin, begin)
    if end is None:
        return 1, _OPEN
    raw, size = b"\n".join(lines[begin : end + 1]), end + 1 - begin
    text = raw.decode(errors="surrogateescape")  # quotes and delimiters are found in a line of any encoding
    cells = _cells(text, delimiter) if text.strip() else []
    if isinstance(cells, str):
        return 1, cells
    if cells and width and len(cells) != width:
        where = f"a field in quotes goes on to line {end + 1}, so the record has " if size > 1 else ""
        return 1, f"{where}{len(cells)} cells, but the header has {width}; quote {_SIGNS[delimiter]} in texts"
    return size, _NOT_UTF8 if _decoded(raw) is None else cells


def _cells(text: str, delimiter: str) -> list[str] | str:
    lines = text.split("\n")
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    try:
        cells = next(reader)
    except csv.Error as error:
        if "expected after" in str(error) and len(lines) == 1:
            return _AFTER_QUOTE
        return _OPEN_ON_ITS_LINE if delimiter == "\t" else _OPEN
    return cells if reader.line_num == len(lines) else _OPEN


def _header_problem(lines: list[bytes], begin: int, header: list[str] | str, delimiter: str) -> str | None:
    text = _decoded(lines[begin])
    if text is None:
        return not_utf8(lines[0])
    if (isinstance(header, str) or len(header) == 1) and (found := _other_delimiter(text, delimiter)):
        if any(_decoded(line) is None for line in lines):  # first: no program that separates anew could read them
            return not_utf8(lines[0])
        mend = _RENAME.get((delimiter, found), _SEPARATE_ANEW.format(found))
        return f"its columns are separated by {found!r}, must be by {delimiter!r}; {mend}"
    if isinstance(header, str):
        return header
    twice = [column for column in header if header.count(column) > 1]
    return f"two columns are called {twice[0]!r:.60}; rename one" if twice else None


def _other_delimiter(line: str, delimiter: str) -> str | None:
    """Return the sign that separates the cells of a header, where it is another one."""
    for other in ",;\t|".replace(delimiter, ""):
        cells = _cells(line, other)
        if not isinstance(cells, str) and len(cells) > 1:
            return other
    return None
