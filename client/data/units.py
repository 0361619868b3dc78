"""Records grouped into units, and units split into train and validation."""

import hashlib
import hmac
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from confide.client.data.dataset_claims import Names
from confide.common.data.batches import Example
from confide.common.data.records import Record, group_of
from confide.common.tasks import Task

_WORDS_OF_ONE_PERSON = 20  # and more: a shorter text beside others may be a question that is put to many


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


def names_of(record: Record, answers: Collection[str], secret: bytes) -> Names | None:
    """Return the keyed names that recognise the same people in another dataset.

    They are made from the group and from what a person wrote: the record without its ``answers``, which another study
    may have changed. One name is of the columns with their texts. The others are of the texts alone (`_texts`), for
    another kind of task has other columns.
    Two datasets of groups are compared by group alone, for texts may be boilerplate. So a text inside a group is
    claimed as a mark of its own, which only a dataset of records looks for. An empty text belongs to no person.

    The result is None for a record that is never used: its group is unknown, it is empty, or nested too deep for JSON.
    """
    columns = {name: value for name, value in record.items() if name not in (*answers, "group")}
    empty = all(map(_is_empty, columns.values()))
    group = group_of(record) if "group" in record else None
    if group is None and (empty or "group" in record):
        return None
    try:
        texts = (_keyed(columns, secret), *(_keyed(["texts", *own], secret) for own in _texts(columns)))
    except RecursionError:
        return None
    inside = tuple(_keyed(["in a group", text.hex()], secret) for text in texts)
    if group is None:
        return Names(claimed=texts, barred=(*texts, *inside))
    person = _keyed(group, secret)
    if empty:
        return Names(claimed=(person,), barred=(person,))
    return Names(claimed=(person, *inside), barred=(person, *texts))


def _texts(columns: Record) -> list[list[str]]:
    """Return all texts of a record without their columns and blanks, then each that is long enough for one person's.

    Of a conversation the user's turns count. So `tokens`, a `source`, a `prompt` and a conversation of one turn are
    the same person as the `text` that they say, and a long `context` is without its question.
    """
    said = [own for value in columns.values() if (own := _said(value))]
    whole = sorted("".join("".join(own).split()) for own in said)
    alone = [text for own in said for text in (" ".join(own), *own) if len(text.split()) >= _WORDS_OF_ONE_PERSON]
    found = [whole, *(["".join(text.split())] for text in alone)] if any(whole) else []
    return [list(own) for own in sorted(set(map(tuple, found)))]


def _said(value: Any) -> list[str]:
    """Return the texts of one column: a text, those of a list, or the user's turns of a conversation."""
    parts = value if isinstance(value, list) else [value]
    turns = [part.get("content") if part.get("role") == "user" else None for part in parts if isinstance(part, dict)]
    return [text for text in [*(part for part in parts if isinstance(part, str)), *turns] if isinstance(text, str)]


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
