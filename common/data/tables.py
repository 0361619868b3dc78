"""Tables of columns: Parquet, folders of its parts, and what ``save_to_disk`` of Hugging Face's datasets makes."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from confide.common.config.places import SAVED_DATASET, SAVED_SPLITS, is_saved_dataset
from confide.common.errors import InputError
from confide.common.forms.labels import NamedCode

Record = dict[str, Any]
_UNFIT = (ValueError, TypeError, LookupError, AttributeError, RecursionError)  # of JSON in another form
_OF_A_SPLIT = re.compile(r"(.+)-\d{5}-of-\d{5}\b.*")  # as the hub names parts: train-00000-of-00002.parquet


def inspect_parquet(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Yield every row of a Parquet file with its number.

    Raises:
        InputError: the file cannot be read, or two of its columns have one name.
    """
    with _opened(path) as file:
        table = file.read()
    yield from _rows(table)


def inspect_folder(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Yield every row of a folder with its number: of a saved dataset, or of parts of Parquet.

    Raises:
        InputError: the folder holds neither, both, several splits, or something that cannot be read.
    """
    if not is_saved_dataset(path):
        yield from _inspect_parts(path)
    elif parquet := sorted(path.glob("*.parquet")):
        raise InputError(
            f"{path}: holds a saved dataset and also {parquet[0].name!r}; keep them in folders of their own"
        )
    else:
        yield from _inspect_saved(_only_split(path) if (path / SAVED_SPLITS).is_file() else path)


def _only_split(path: Path) -> Path:
    try:
        splits = [path / name for name in json.loads((path / SAVED_SPLITS).read_bytes())["splits"]]
        first: Path = splits[0]
    except _UNFIT:
        raise _not_saved(path) from None
    if len(splits) > 1:
        names = ", ".join(sorted(repr(split.name) for split in splits))
        raise InputError(f"{path}: holds the splits {names}; name the folder of one of them, for example {first}")
    return first


def _not_saved(path: Path) -> InputError:
    return InputError(f"{path}: not a saved dataset that can be read; save it again or use .jsonl")


def _inspect_saved(path: Path) -> Iterator[tuple[int, Record | str]]:
    import pyarrow

    try:
        state = json.loads((path / SAVED_DATASET).read_bytes())
        if state.get("_indices_data_files"):
            raise InputError(f"{path}: holds rows that its indices leave out; save it again after flatten_indices()")
        tables = []
        for part in state["_data_files"]:
            with pyarrow.OSFile(str(path / part["filename"])) as file, pyarrow.ipc.open_stream(file) as stream:
                tables.append(stream.read_all())
        _require_distinct(path, tables[0].column_names)
        yield from _rows(pyarrow.concat_tables(tables))
    except (*_UNFIT, pyarrow.ArrowException):
        raise _not_saved(path) from None


def _inspect_parts(path: Path) -> Iterator[tuple[int, Record | str]]:
    # Names that begin with "." or "_" are marks of the programs that write parts, as _SUCCESS.
    there = sorted(entry for entry in path.iterdir() if not entry.name.startswith((".", "_")))
    parts = [entry for entry in there if entry.suffix == ".parquet"]
    if not parts:
        raise InputError(
            f"{path}: holds neither a dataset that Dataset.save_to_disk made nor files that end with .parquet"
        )
    if others := [entry.name for entry in there if entry not in parts]:
        raise InputError(f"{path}: holds parts of Parquet and {others[0]!r}; name a folder of .parquet files alone")
    splits = sorted({found[1] for part in parts if (found := _OF_A_SPLIT.match(part.name))})
    if len(splits) > 1:
        named = ", ".join(map(repr, splits))
        raise InputError(f"{path}: holds parts of the splits {named}; give each split a folder of its own")
    _require_same_columns(parts)
    number = 0
    for part in parts:
        for _, row in inspect_parquet(part):
            number += 1
            yield number, row


def _require_same_columns(parts: list[Path]) -> None:
    """Compare names alone: pandas writes whole numbers as float where one is missing, and readers take 1.0 for 1."""
    columns = dict[Path, list[str]]()
    for part in parts:
        with _opened(part) as file:
            columns[part] = sorted(file.schema_arrow.names)
    first = columns[parts[0]]
    for part, names in columns.items():
        if names != first:
            raise InputError(
                f"{part}: has the columns {', '.join(map(repr, names))}, but {parts[0].name} has "
                f"{', '.join(map(repr, first))}; write all parts with the same columns"
            )


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as content, pyarrow.parquet.ParquetFile(content) as file:
            _require_distinct(path, file.schema_arrow.names)
            yield file
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, pyarrow.ArrowNotImplementedError):
        raise InputError(f"{path}: not a Parquet file that can be read; write it again or use .jsonl") from None


def _require_distinct(path: Path, names: list[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: two columns are called {twice[0]!r:.60}; rename one")


def _rows(table: Any) -> Iterator[tuple[int, Record | str]]:
    names, columns = table.column_names, [_values(column) for column in table.columns]
    for name, codes in _codes_in(table).items():
        if name in names:
            index = names.index(name)
            columns[index] = [_named(value, codes) for value in columns[index]]
    for number, cells in enumerate(zip(*columns, strict=True), start=1):
        yield number, dict(zip(names, cells, strict=True))


def _codes_in(table: Any) -> dict[str, Any]:
    """Return the names of codes in a table that Hugging Face's datasets wrote, by column; none of another table."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        codes = _codes_of(features)
    except _UNFIT:
        return {}
    return codes if isinstance(codes, dict) else {}


def _codes_of(feature: Any) -> Any:
    """Return the names that a ClassLabel gives to the codes 0, 1 and so on; of a list, those of its items.

    Of an object: part -> its names. Without a ClassLabel the result is empty.
    """
    if isinstance(feature, list) and len(feature) == 1:
        return _codes_of(feature[0])
    if not isinstance(feature, dict):
        return []
    if isinstance(feature.get("_type"), str):
        names = feature.get("names", [])
        known = isinstance(names, list) and all(isinstance(name, str) for name in names)
        return _codes_of(feature["feature"]) if "feature" in feature else names if known else []
    return {name: codes for name, part in feature.items() if (codes := _codes_of(part))}


def _named(value: Any, codes: Any) -> Any:
    """Return a value with names for its codes: numbers that know their names, and within objects the names alone."""
    return _renamed(value, codes, NamedCode)


def _renamed(value: Any, codes: Any, make: Callable[[int, str], Any]) -> Any:
    if isinstance(value, list):
        return [_renamed(item, codes, make) for item in value]
    if isinstance(value, dict) and isinstance(codes, dict):
        return {name: _renamed(part, codes.get(name), lambda _, known: known) for name, part in value.items()}
    known = isinstance(value, int) and not isinstance(value, bool) and isinstance(codes, list)
    return make(value, codes[value]) if known and 0 <= value < len(codes) else value


def _values(column: Any) -> list[Any]:
    """Return a column's values; None for one that Python cannot hold, as a day after the year 9999 or a broken text."""
    import pyarrow

    unfit, values = (ValueError, OverflowError, pyarrow.ArrowException), list[Any]()
    with contextlib.suppress(*unfit):
        return list(column.to_pylist())
    for cell in column:
        values.append(None)
        with contextlib.suppress(*unfit):
            values[-1] = cell.as_py()
    return values
