"""The files that `confide verify` reads: real files alone, and JSON in which no key comes twice."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read(path: Path) -> bytes:
    """Return the content of a file; `ValueError` for anything else, such as a device, which may have no end."""
    if not path.is_file():
        raise ValueError(f"{path.name} is no file")
    return path.read_bytes()


def parse(content: bytes | str, where: str) -> Any:
    """Return what a JSON text holds; `ValueError` names the place of another text."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("a key comes twice")  # two readers could then see two values
        return found

    try:
        return json.loads(content, object_pairs_hook=unique)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} is not JSON: {error}") from None


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON lines file; `ValueError` names a line that is none."""
    for number, line in enumerate(read(path).splitlines(), start=1):
        content = parse(line, where := f"{path.name} line {number}")
        if not isinstance(content, dict):
            raise ValueError(f"{where} is no object")
        yield content
