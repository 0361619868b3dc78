"""Tables of columns: Parquet, and the folder that ``Dataset.save_to_disk`` of Hugging Face's datasets makes."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from confide.common.config.places import SAVED_DATASET, SAVED_SPLITS
from confide.common.errors import InputError
from confide.common.forms.labels import NamedCode

Record = dict[str, Any]


def inspect_parquet(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Yield every row of a Parquet file with its number.

    Raises:
        InputError: the file cannot be read, or two of its columns have one name.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        if path.is_file():
            _require_distinct(path, pyarrow.parquet.read_schema(path).names)
        yield from _rows(pyarrow.parquet.read_table(path))
    except (ValueError, pyarrow.ArrowNotImplementedError):
        raise InputError(f"{path}: not a Parquet file that can be read; write it again or use .jsonl") from None


def inspect_saved_dataset(path: Path) -> Iterator[tuple[int, Record | str]]:
    """Yield every row of a saved dataset with its number.

    Raises:
        InputError: the dataset holds several splits, cannot be read, or two of its columns have one name.
    """
    import pyarrow

    if (path / SAVED_SPLITS).is_file():
        splits = ", ".join(repr(folder.name) for folder in sorted(path.iterdir()) if folder.is_dir())
        raise InputError(f"{path}: holds the splits {splits}; name the folder of one of them")
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
    except (ValueError, TypeError, LookupError, AttributeError, pyarrow.ArrowException):
        raise InputError(f"{path}: not a saved dataset that can be read; save it again or use .jsonl") from None


def _require_distinct(path: Path, names: list[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: two columns are called {twice[0]!r}; rename one")


def _rows(table: Any) -> Iterator[tuple[int, Record | str]]:
    names, columns = table.column_names, [_values(column) for column in table.columns]
    for index, codes in _names_of_codes(table).items():
        columns[index] = [_all_named(value, codes) for value in columns[index]]
    for number, cells in enumerate(zip(*columns, strict=True), start=1):
        yield number, dict(zip(names, cells, strict=True))


def _names_of_codes(table: Any) -> dict[int, list[str]]:
    """Return column -> the names that its ClassLabel gives to the codes 0, 1 and so on, from the table's metadata."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (ValueError, TypeError, LookupError):
        return {}
    if not isinstance(features, dict):
        return {}
    named = {}
    for index, name in enumerate(table.column_names):
        feature = _of_one(features.get(name))
        codes = feature.get("names") if isinstance(feature, dict) else None
        if isinstance(codes, list) and all(isinstance(code, str) for code in codes):
            named[index] = codes
    return named


def _of_one(feature: Any) -> Any:
    """Return the feature of one value of a column of lists; another feature stays."""
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    inner = feature.get("feature") if isinstance(feature, dict) else None
    return inner if isinstance(inner, dict) else feature


def _all_named(value: Any, codes: list[str]) -> Any:
    return [_named(item, codes) for item in value] if isinstance(value, list) else _named(value, codes)


def _named(value: Any, codes: list[str]) -> Any:
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(codes)
    return NamedCode(value, codes[value]) if known else value


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
