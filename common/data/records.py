"""A file or a folder of texts as checked records."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from confide.common.data.lines import inspect_csv, inspect_jsonl, inspect_tsv
from confide.common.data.tables import inspect_folder, inspect_parquet
from confide.common.errors import InputError
from confide.common.shown import shown
from confide.common.tasks import Task

Record = dict[str, Any]
MAX_CHARS = 20_000  # of a text, unless a configuration says otherwise
_LINES = {".jsonl": inspect_jsonl, ".csv": inspect_csv, ".tsv": inspect_tsv}  # each of them may be packed: .csv.gz
_IN_EXCEL = "; in Excel, save it as 'CSV UTF-8'"
_OF_A_LIST = (
    "; if it has one object a line, let its name end with .jsonl; if it is one list of objects, type: python -c "
    "\"import pandas; pandas.read_json('OLD', dtype=False, convert_dates=False)"
    ".to_json('NEW.jsonl', orient='records', lines=True)\""
)
_MENDS = {".xlsx": _IN_EXCEL, ".xls": _IN_EXCEL, ".json": _OF_A_LIST}  # of a file with another ending


def read_rows(path: Path) -> list[Record]:
    """All rows of a file or folder, as `inspect_rows` finds them; raises what `numbered_rows` raises."""
    return list(numbered_rows(path).values())


def numbered_rows(path: Path) -> dict[int, Record]:
    """All rows of a file or folder by the number of their first line (of a table: of the row).

    Raises:
        InputError: absent, unreadable, not UTF-8, malformed (with the line's number) or empty.
    """
    rows = dict[int, Record]()
    for number, row in inspect_rows(path):
        if isinstance(row, str):
            raise InputError(f"{path}:{number}: {row}")
        rows[number] = row
    if not rows:
        raise InputError(f"{path}: holds no records")
    return rows


def inspect_rows(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Every record by the number of its first line (of a table: of its row): a row, or what is wrong with the line.

    A file ends with .jsonl, .csv or .tsv, each also packed (.csv.gz), or with .parquet. A folder holds a saved dataset
    (``Dataset.save_to_disk``), alone or as the only split, or parts of Parquet, read in the order of their names.

    Raises:
        InputError: absent, unreadable, or of no such form.
    """
    try:
        yield from _inspect(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None


def _inspect(path: Path) -> Iterator[tuple[int, Record | str]]:
    reader = _LINES.get(Path(path.name.removesuffix(".gz")).suffix)
    if path.is_dir():
        return inspect_folder(path)
    if reader is not None:
        return reader(path)
    if path.suffix == ".parquet":
        return inspect_parquet(path)
    raise InputError(
        f"{path}: its ending {path.suffix!r} must be one of {', '.join(_LINES)} (each also with .gz) and .parquet, or "
        f"it must be a folder that is there{_MENDS.get(path.suffix.lower(), '')}"
    )


def read_usable_rows(path: Path) -> list[Record]:
    """The rows of a file that `read_rows` would take, each for itself; broken ones are passed over in silence.

    For a client after it has joined a run: then no line of the file may decide whether a round is answered.

    Raises:
        InputError: the file cannot be read at all, or is of no form that we know.
    """
    return [row for _, row in inspect_rows(path) if not isinstance(row, str)]


def select(rows: list[Record], columns: Mapping[str, str], source: str, option: str = "") -> list[Record]:
    """Rows with their columns renamed to ours: ``columns`` maps our name to the file's.

    Raises:
        InputError: a column that no row, or not every row, has; the message names the row and lists what is there, and
            an ``option`` of the command that names columns.
    """
    for number, row in enumerate(rows, start=1):
        if wrong := absent_column(row, columns, number, option):
            raise InputError(f"{source}: {wrong}")
    return [{name: row[column] for name, column in columns.items()} for row in rows]


def absent_column(row: Mapping[str, Any], columns: Mapping[str, str], number: int, option: str = "") -> str:
    """Return which column a row has not and which it has, and how an option names another; "" if all are there."""
    for name, column in columns.items():
        if column not in row:
            ours = "" if name == column else f" (our {name!r})"
            there = shown(", ".join(map(repr, row)), 200)
            remedy = f"; name the one that holds it with {option} {name}=COLUMN" if option else ""
            return f"record {number} has no column {column!r}{ours}; it has: {there or 'none'}{remedy}"
    return ""


def group_of(row: Record) -> str | None:
    """A row's group as text; None where it has none: null, NaN, nothing but blanks, or nested too deep for JSON.

    17, 17.0, a decimal 17.00 and "17" are one patient, and so are two objects with the same parts in another order.
    """
    group = row["group"]
    if group is None or group != group:  # noqa: PLR0124 - NaN alone differs from itself
        return None
    if isinstance(group, dict | list):
        return _nested(group)
    if isinstance(group, Decimal) and group.is_finite():
        whole, _, rest = f"{group:f}".partition(".")
        return f"{whole}.{rest.rstrip('0')}".removesuffix(".")
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


def check_records(
    rows: list[Record], task: Task, max_chars: int, source: str, lines: Sequence[int] = ()
) -> tuple[list[Record], list[str]]:
    """Records whose texts are cut to ``max_chars``, and the warnings for the user.

    Args:
        rows: in our columns.
        task: of the run.
        max_chars: of a text.
        source: the name of the file, for messages.
        lines: the number of each row's line in that file; none if the rows are of no file.

    Raises:
        InputError: the first record that the task cannot use, with value, rule and remedy, and the number of others.
    """
    records = [task.cut(row, max_chars) for row in rows]
    faults = [(index, problem) for index, record in enumerate(records) if (problem := task.check(record))]
    if faults:
        index, problem = faults[0]
        place = f"{source}:{lines[index]}" if lines else f"{source}: record {index + 1}"
        raise InputError(f"{place}: {problem}{_others(len(faults) - 1, source if lines else None)}")
    num_cut = sum(record != row for record, row in zip(records, rows, strict=True))
    warnings = [f"{source}: {num_cut} texts are longer than {max_chars} characters and were cut"] if num_cut else []
    return records, warnings


def _others(count: int, file: str | None) -> str:
    """Return in words that ``count`` more records have a fault, and the command that names all of a file."""
    if not count:
        return ""
    names = f"; `confide data check {shlex.quote(file)} --run RUN.toml` names them all" if file else ""
    return f"; {count} more {'record has' if count == 1 else 'records have'} a fault{names}"


def read_public(
    path: Path, task: Task, columns: Mapping[str, str] | None = None, max_chars: int = MAX_CHARS, option: str = ""
) -> tuple[list[Record], list[str]]:
    """Checked records of a public file, and the warnings for the user; ``columns`` and ``option`` as of `select`.

    Raises:
        InputError: the file cannot be read, or has a record that the task cannot use.
    """
    names = {name: (columns or {}).get(name, name) for name in task.fields()}
    rows = numbered_rows(path)
    return check_records(select(list(rows.values()), names, str(path), option), task, max_chars, str(path), list(rows))
