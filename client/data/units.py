"""Records grouped into units, and units split into train and validation."""

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import Any

from confide.client.data.dataset_claims import Names
from confide.common.data.batches import Example
from confide.common.data.records import Record, group_of
from confide.common.tasks import Task

_MARKS = re.compile("</?e[12]>")  # of the two names of a relation


@dataclass(frozen=True)
class UnitTable:
    """Encoded examples, unit by unit: ``units[u]`` holds the examples of unit u."""

    units: list[list[Example]]

    @property
    def num_units(self) -> int:
        """Number of units (private)."""
        return len(self.units)


def unit_key(record: Record, secret: bytes) -> bytes:
    """Return the keyed name of a record's unit: HMAC-SHA256 of its group, or of its content if there is no group.

    The key keeps a name from telling anything outside the institution. The name follows from content, never from
    position or count, so adding or removing one unit moves no other.
    """
    return _keyed(group_of(record) if "group" in record else record, secret)


def _keyed(content: Any, secret: bytes) -> bytes:
    # As ASCII JSON, so that everything a file can hold has a name: a lone surrogate, a date, a number.
    return hmac.digest(secret, json.dumps(content, sort_keys=True, default=str).encode(), hashlib.sha256)


def split_records(
    records: list[dict[str, Any]], secret: bytes, validation_fraction: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return train and validation records. The key of a unit alone decides on which side all its records fall."""
    shares: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for record in records:
        position = int.from_bytes(unit_key(record, secret)[:8], "big") / 2**64
        shares[position < validation_fraction].append(record)
    return shares


def names_of(record: Record, task: Task, secret: bytes) -> Names | None:
    """Return the keyed names that recognise the same people in another dataset.

    They are made from the group and from what a person wrote: the record without its answers, which another study may
    have changed. One name is of the columns with their texts. The others are of the texts alone (`_texts`), for another
    kind of task has other columns.
    Two datasets of groups are compared by group alone, for texts may be boilerplate. So a text inside a group is
    claimed as a mark of its own, which only a dataset of records looks for. An empty text belongs to no person.

    The result is None for a record that is never used: its group is unknown, it is empty, or nested too deep for JSON.
    """
    columns = {name: value for name, value in record.items() if name not in (*task.answers(), "group")}
    empty = all(map(_is_empty, columns.values()))
    group = group_of(record) if "group" in record else None
    if group is None and (empty or "group" in record):
        return None
    try:
        alone = _texts(columns, columns.get(task.inputs()[0]))
        texts = (_keyed(columns, secret), *(_keyed(["texts", *own], secret) for own in alone))
    except RecursionError:
        return None
    inside = tuple(_keyed(["in a group", text.hex()], secret) for text in texts)
    if group is None:
        return Names(claimed=texts, barred=(*texts, *inside))
    person = _keyed(group, secret)
    if empty:
        return Names(claimed=(person,), barred=(person,))
    return Names(claimed=(person, *inside), barred=(person, *texts))


def _texts(columns: Record, first: Any) -> list[tuple[str, ...]]:
    """Return all texts of a record without their columns and blanks, then each long one of its first input alone.

    So `tokens`, a `source`, a `prompt` and a user's turn are the same person as the `text` that they say, and a long
    `context` is without its question. The other inputs (a candidate, an item, a question) may stand beside many people.
    A conversation also has the assistant's turns, which are left out: short turns are the same in many of them.
    """
    said = list(filter(None, map(_said, columns.values())))
    whole = tuple(sorted("".join("".join(own).split()) for own in said))
    own = _said(first)
    alone = [text for text in (" ".join(own), *own) if _is_long(text)]
    talks = any(isinstance(part, dict) for value in columns.values() if isinstance(value, list) for part in value)
    found = {("".join(text.split()),) for text in alone}
    return sorted(found | ({whole} if any(whole) and not talks else set()))


def _is_long(text: str) -> bool:
    """Return whether a text is one person's, and no question or greeting: 20 words, or 100 letters without blanks."""
    words = text.split()
    return len(words) >= 20 or sum(map(len, words)) >= 100


def _said(value: Any) -> list[str]:
    """Return the texts of one column: a text, those of a list, or the user's turns of a conversation."""
    parts = value if isinstance(value, list) else [value]
    turns = [part.get("content") if part.get("role") == "user" else None for part in parts if isinstance(part, dict)]
    texts = [*(part for part in parts if isinstance(part, str)), *turns]
    return [_MARKS.sub("", text) for text in texts if isinstance(text, str)]


def _is_empty(value: Any) -> bool:
    """Return whether a value says nothing: no value, blanks, or a list of such."""
    if isinstance(value, list):
        return all(item is None or (isinstance(item, str) and not item.strip()) for item in value)
    return value is None or (isinstance(value, str) and not value.strip())


def make_units(
    records: list[dict[str, Any]], task: Task, tokenizer: Any, secret: bytes, max_records_per_group: int = 1
) -> UnitTable:
    """Encode records and gather them into units, in the order of keyed names, which tells nothing about the file."""
    gathered = gather_units(records, task, tokenizer, secret, max_records_per_group)
    return UnitTable([[example for _, examples in unit for example in examples] for unit in gathered])


def gather_units(
    records: list[dict[str, Any]], task: Task, tokenizer: Any, secret: bytes, max_records_per_group: int = 1
) -> list[list[tuple[dict[str, Any], list[Example]]]]:
    """Return the records that a task can use, with their examples, unit by unit.

    A record that cannot be encoded contributes nothing, silently: no record may stop or shape a round.
    Records with a "group" are gathered by it, at most ``max_records_per_group`` of them, chosen by keyed hash. A
    record whose group is unknown is dropped. A record without a "group" is a unit of its own.
    """
    grouped: dict[bytes, list[tuple[bytes, dict[str, Any], list[Example]]]] = {}
    for number, record in enumerate(records):
        if "group" in record and group_of(record) is None:
            continue
        own = b"" if "group" in record else number.to_bytes(8, "big")  # equal records stay units of their own
        try:
            if task.check(record):
                continue
            examples = task.examples(record, tokenizer)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001, S112 - no error of a record may show, not even a panic of Rust
            continue
        grouped.setdefault(unit_key(record, secret) + own, []).append((_keyed(record, secret), record, examples))
    units = []
    for key in sorted(grouped):
        members = sorted(grouped[key], key=lambda member: member[0])[:max_records_per_group]
        units.append([(record, examples) for _, record, examples in members])
    return units
