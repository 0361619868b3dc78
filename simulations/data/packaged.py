"""Files of installed packages, found without an import: what these packages depend on need not be there."""

import importlib.util
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

from confide.common.data.records import Record
from confide.common.errors import InputError


def find_packaged(module: str, file: str, remedy: str) -> Path:
    """Return the path of a file in an installed package.

    Args:
        module: top-level name of the package.
        file: path within it.
        remedy: the command that installs it, for the message.

    Raises:
        InputError: it is not installed, or in a version without the file.
    """
    spec = importlib.util.find_spec(module)
    places = (spec.submodule_search_locations if spec else None) or []
    found = next((Path(place) / file for place in places if (Path(place) / file).is_file()), None)
    if found is None:
        raise InputError(
            f"the texts of this scenario are not installed ({module}/{file}); {remedy}, "
            "or name a file of your own in [simulation] data"
        )
    return found


def distinct(rows: Iterable[Record], key: Callable[[Record], Hashable]) -> list[Record]:
    """Return the first row of each key, in order. A text on both sides of a split would be tested from memory."""
    first: dict[Hashable, Record] = {}
    for row in rows:
        first.setdefault(key(row), row)
    return list(first.values())
