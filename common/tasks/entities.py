"""Entities: names in a text with a type, as BIO tags of its words, and the rates by which they are counted."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

OUTSIDE = "O"


def entities(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Yield type, first and last word of each entity, as conlleval reads BIO: "I-" after another type begins one.

    >>> list(entities(["B-a", "I-a", "I-b", "O", "B-b"]))
    [('a', 0, 1), ('b', 2, 2), ('b', 4, 4)]
    """
    begun: tuple[str, int] | None = None
    for place, tag in enumerate([*tags, OUTSIDE]):
        goes_on = begun is not None and tag == f"I-{begun[0]}"
        if begun is not None and not goes_on:
            yield begun[0], begun[1], place - 1
            begun = None
        if tag != OUTSIDE and not goes_on:
            begun = (tag[2:], place)


def rates(suffix: str, records: list[tuple[set[Any], set[Any], set[Any]]]) -> dict[str, float]:
    """Return precision, recall and F1 from hits, truths and predictions of each record; 0 where nothing is counted."""
    hits, right, found = (sum(len(record[side]) for record in records) for side in range(3))
    return {
        f"precision{suffix}": hits / found if found else 0.0,
        f"recall{suffix}": hits / right if right else 0.0,
        f"f1{suffix}": 2 * hits / (right + found) if right + found else 0.0,
    }


def starts_of(tokens: list[str]) -> list[int]:
    """Return the place of each token in the tokens joined by blanks."""
    starts, place = [], 0
    for token in tokens:
        starts.append(place)
        place += len(token) + 1
    return starts


def plain(value: Any) -> Any:
    """Return a list of a file, which Parquet gives as an array, as a list."""
    return value.tolist() if hasattr(value, "tolist") else value


def renamed(answer: Any, names: Mapping[str, str]) -> Any:
    """Return tags or entities with types renamed; whatever has another form stays, for `check` to name."""
    given = plain(answer)
    if not isinstance(given, list):
        return answer
    result: list[Any] = []
    for item in given:
        if isinstance(item, str) and item[:2] in ("B-", "I-"):
            result.append(item[:2] + names.get(item[2:], item[2:]))
        elif isinstance(item, dict) and isinstance(item.get("label"), str):
            result.append({**item, "label": names.get(item["label"], item["label"])})
        else:
            result.append(item)
    return result
