"""A signed answer with a payload: as a record of a message, as a receipt, and as the bytes of a file."""

import json
import re
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from flwr.app import ConfigRecord, RecordDict

from confide.common.protocol.wire import MAX_ENVELOPE, MessageError, json_object, record, sha256, typed

_SIGNATURE = re.compile("[0-9a-f]{128}")


class Facts(Protocol):
    """The facts that an answer states of itself; every value is public."""

    @property
    def what(self) -> str:
        """The kind of the answer."""

    @property
    def ledger_head(self) -> str:
        """The hash of the ledger row that charged it, hex."""

    @property
    def payload_sha256(self) -> str:
        """The hash of its payload, hex."""

    def text(self) -> str:
        """Return the canonical JSON that the institution signs."""


Envelope = TypeVar("Envelope", bound=Facts)


@dataclass(frozen=True)
class Signed(Generic[Envelope]):
    """An institution's answer: envelope, Ed25519 signature of its text in hex, payload."""

    envelope: Envelope
    signature: str
    payload: bytes

    def receipt(self) -> str:
        """Return the receipt with which a server shows that it has the answer: envelope and signature, as JSON."""
        return json.dumps({"envelope": self.envelope.text(), "signature": self.signature})

    def to_bytes(self) -> bytes:
        """Return it as the bytes of a file: the receipt's line, then the payload."""
        return self.receipt().encode() + b"\n" + self.payload

    def record(self, payload: str) -> ConfigRecord:
        """Return it as a record, with its payload under a name."""
        return ConfigRecord({payload: self.payload, "envelope": self.envelope.text(), "signature": self.signature})


def read_record(kind: type[Envelope], content: RecordDict, names: tuple[str, str]) -> tuple[Envelope, str, bytes]:
    """Return envelope, signature and payload of an unchecked message, the signature unchecked.

    Args:
        kind: of the envelope.
        content: the message.
        names: of the record, and of the payload in it.

    Raises:
        MessageError: the form is wrong, or the payload does not match its envelope.
    """
    values = record(content, names[0])
    payload = values.get(names[1])
    if not isinstance(payload, bytes) or len(values) != 3:
        raise MessageError(f"form: record {names[0]!r} must be {names[1]!r}, envelope and signature")
    envelope, signature = read_signed(kind, values.get("envelope"), values.get("signature"))
    if sha256(payload) != envelope.payload_sha256:
        raise MessageError("payload_sha256 does not match the payload")
    return envelope, signature, payload


def read_file(kind: type[Envelope], content: bytes) -> tuple[Envelope, str, bytes]:
    """Return envelope, signature and payload of the bytes that `Signed.to_bytes` gave; `MessageError` for others."""
    head, _, payload = content.partition(b"\n")
    return *read_receipt(kind, head.decode(errors="replace")), payload


def read_receipt(kind: type[Envelope], text: str) -> tuple[Envelope, str]:
    """Return envelope and signature of a receipt, the signature unchecked; `MessageError` for another form."""
    values = json_object(text)
    return read_signed(kind, values.get("envelope"), values.get("signature"))


def read_signed(kind: type[Envelope], envelope: Any, signature: Any) -> tuple[Envelope, str]:
    """Return an unchecked envelope's text as an envelope, with its signature; `MessageError` for another form."""
    if not (isinstance(envelope, str) and isinstance(signature, str) and len(envelope) <= MAX_ENVELOPE):
        raise MessageError("form: not an envelope")
    if not _SIGNATURE.fullmatch(signature):
        raise MessageError("form: a signature is 64 bytes in hex")
    parsed: Envelope = typed(kind, json_object(envelope))
    return parsed, signature
