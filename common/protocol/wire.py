"""The checks of the form of a message: its records and their fields."""

import hashlib
import json
import math
import re
from dataclasses import fields
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

MAX_ENVELOPE = 4096  # characters of an envelope's text
_LINEAGE = re.compile("[0-9a-f]{32}")


class MessageError(Exception):
    """A message that does not have the form of this protocol. The text names no content."""


def sha256(payload: bytes) -> str:
    """Return SHA-256 in hex."""
    return hashlib.sha256(payload).hexdigest()


def canonical(value: Any) -> str:
    """Return a value as the one JSON text that is signed and hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def json_object(text: str) -> dict[str, Any]:
    """Return a text as a JSON object; `MessageError` for any other text."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        raise MessageError("form: not JSON") from None
    if not isinstance(parsed, dict):
        raise MessageError("form: not a JSON object")
    return parsed


def record(content: RecordDict, name: str) -> ConfigRecord:
    """Return one record of a message; `MessageError` if there is none."""
    found = content.get(name)
    if not isinstance(found, ConfigRecord):
        raise MessageError(f"form: no record {name!r}")
    return found


def answer_to(ask: Message, content: RecordDict) -> Message:
    """Return a reply with the times of its ask: Flower would write the reply's own time there, to the microsecond."""
    reply = Message(content, reply_to=ask)
    reply.metadata.created_at, reply.metadata.ttl = ask.metadata.created_at, ask.metadata.ttl
    return reply


def typed(cls: type[Any], values: dict[str, Any]) -> Any:
    """Make a dataclass from exactly its fields, each of exactly its type; `MessageError` for any others."""
    kinds = {field.name: field.type for field in fields(cls)}
    if values.keys() != kinds.keys():
        raise MessageError(f"form: not the fields of {cls.__name__}")
    for name, kind in kinds.items():
        value = values[name]
        if type(value) is not (getattr(kind, "__origin__", None) or kind) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise MessageError(f"form: {name} must be {getattr(kind, '__name__', kind)}")
        if isinstance(value, str) and any("\ud800" <= sign <= "\udfff" for sign in value):
            raise MessageError(f"form: {name} holds half a character")  # no file and no log could take it
    if "lineage" in values and not _LINEAGE.fullmatch(values["lineage"]):
        raise MessageError("form: lineage must be 16 bytes in hex")
    return cls(**values)
