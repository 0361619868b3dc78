"""Records grouped to units, and units shared out to train and validation."""

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Any

from confide.client.data.dataset_claims import Names
from confide.common.data.batches import Example
from confide.common.data.records import Row, group_of
from confide.common.tasks import Task


@dataclass(frozen=True)
class UnitTable:
    """Encoded examples, unit by unit: ``units[u]`` holds the examples of unit u."""

    units: list[list[Example]]

    @property
    def num_units(self) -> int:
        """Number of units (private)."""
        return len(self.units)


def unit_key(record: Row, secret: bytes) -> bytes:
    """The keyed name of a record's unit: HMAC-SHA256 of its group, or of its content where there is no group.

    Keyed, so that a name tells nothing outside the institution; by content and never by position or count, so that
    adding or removing one unit moves no other.
    """
    return _keyed(group_of(record) if "group" in record else record, secret)


def _keyed(content: Any, secret: bytes) -> bytes:
    # As ASCII JSON, so that whatever a file can hold has a name: a lone surrogate, a date, a number.
    return hmac.digest(secret, json.dumps(content, sort_keys=True, default=str).encode(), hashlib.sha256)


def split_records(
    records: list[dict[str, Any]], secret: bytes, validation_fraction: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Train and validation records; all records of a unit fall on one side, decided by the unit's key alone."""
    shares: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for record in records:
        position = int.from_bytes(unit_key(record, secret)[:8], "big") / 2**64
        shares[position < validation_fraction].append(record)
    return shares


def names_of(record: Row, secret: bytes) -> Names | None:
    """The keyed names under which the same people are known again in another dataset.

    Those are their group and their text: the record without its label, which another study may have changed. Two
    datasets of groups are compared by group alone, for texts may be boilerplate; so what is claimed of a text inside a
    group is a mark of its own, which only a dataset of records looks for. An empty text is nobody's. None for a record
    that is never used: its group is not known, it is empty, or nested too deep for JSON.
    """
    texts = {name: value for name, value in record.items() if name not in ("label", "group")}
    empty = all(value is None or (isinstance(value, str) and not value.strip()) for value in texts.values())
    group = group_of(record) if "group" in record else None
    if group is None and (empty or "group" in record):
        return None
    try:
        text = _keyed(texts, secret)
    except RecursionError:
        return None
    inside = _keyed(["in a group", text.hex()], secret)
    if group is None:
        return Names(claimed=(text,), barred=(text, inside))
    person = _keyed(group, secret)
    if empty:
        return Names(claimed=(person,), barred=(person,))
    return Names(claimed=(person, inside), barred=(person, text))


def make_units(
    records: list[dict[str, Any]], task: Task, tokenizer: Any, secret: bytes, max_records_per_group: int = 1
) -> UnitTable:
    """Encode records and gather them to units, in the order of their keyed names, which says nothing about the file."""
    gathered = gather_units(records, task, tokenizer, secret, max_records_per_group)
    return UnitTable([[example for _, example in unit] for unit in gathered])


def gather_units(
    records: list[dict[str, Any]], task: Task, tokenizer: Any, secret: bytes, max_records_per_group: int = 1
) -> list[list[tuple[dict[str, Any], Example]]]:
    """Records that a task can use, with their examples, unit by unit.

    A record that cannot be encoded contributes nothing, silently: no record may stop or shape a round.
    Records with a "group" are gathered by it, at most ``max_records_per_group`` of them, chosen by keyed hash; a
    record without a group key is dropped. Others are a unit each.
    """
    grouped: dict[bytes, list[tuple[bytes, dict[str, Any], Example]]] = {}
    for number, record in enumerate(records):
        if "group" in record and group_of(record) is None:
            continue
        own = b"" if "group" in record else number.to_bytes(8, "big")  # equal records stay units of their own
        try:
            if task.check(record):
                continue
            example = task.encode(record, tokenizer)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001, S112 - whatever a record provokes, it must not show; a panic of Rust too
            continue
        grouped.setdefault(unit_key(record, secret) + own, []).append((_keyed(record, secret), record, example))
    units = []
    for key in sorted(grouped):
        members = sorted(grouped[key], key=lambda member: member[0])[:max_records_per_group]
        units.append([(record, example) for _, record, example in members])
    return units
