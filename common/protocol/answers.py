"""The answers of an institution: its reply to an offer, its update, and its refusal."""

import re
import secrets
from dataclasses import asdict, dataclass
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from confide.common.protocol.asks import Ask
from confide.common.protocol.signed import Signed, read_file, read_record
from confide.common.protocol.versions import other_versions, require_same
from confide.common.protocol.wire import MessageError, canonical, record, sha256, typed

_KEY = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Envelope:
    """The facts that an update states of itself; every value is public."""

    study: str
    lineage: str
    what: str  # "update" or "validation"
    round: int
    institution: str
    run_sha256: str
    base_sha256: str
    input_sha256: str
    update_id: str
    payload_sha256: str
    ledger_head: str  # hash of the ledger row that charged it

    def text(self) -> str:
        """Return the canonical JSON that the institution signs."""
        return canonical(asdict(self))


def seal_envelope(ask: Ask, what: str, names: tuple[str, str], payload: bytes, ledger_head: str) -> Envelope:
    """Return the envelope of an answer to an ask, with a fresh random id; ``names``: institution, hash of its base."""
    institution, base_sha256 = names
    asked: dict[str, Any] = {
        key: getattr(ask, key) for key in ("study", "lineage", "round", "run_sha256", "input_sha256")
    }
    own: dict[str, Any] = {"institution": institution, "base_sha256": base_sha256, "ledger_head": ledger_head}
    return Envelope(what=what, update_id=secrets.token_hex(16), payload_sha256=sha256(payload), **asked, **own)


class Update(Signed[Envelope]):
    """An institution's answer to an ask: an adapter's change, or validation counts."""

    def content(self) -> RecordDict:
        """Return it as records of a Flower message."""
        return RecordDict({"update": self.record("safetensors")})

    @classmethod
    def from_content(cls, content: RecordDict) -> "Update":
        """Make it from the unchecked records of a reply; `MessageError` as in `signed.read_record`."""
        return cls(*read_record(Envelope, content, ("update", "safetensors")))

    @classmethod
    def from_bytes(cls, content: bytes) -> "Update":
        """Make it from the bytes of a file; `MessageError` if another version of the protocol wrote them."""
        try:
            return cls(*read_file(Envelope, content))
        except MessageError:
            raise MessageError(
                "this answer was sealed by another version of Confide, and the server takes no such answer; the "
                "round goes on without it, and nothing more is charged"
            ) from None


@dataclass(frozen=True)
class Acceptance:
    """An institution's answer to an offer."""

    institution: str
    declared_units: int
    update_key: str  # Ed25519, hex: signs its updates

    def content(self) -> RecordDict:
        """Return it as records of a Flower message."""
        return RecordDict({"accepted": ConfigRecord(asdict(self))})

    @classmethod
    def from_content(cls, content: RecordDict) -> "Acceptance":
        """Make it from records of a reply; `MessageError` for another form."""
        acceptance: Acceptance = typed(cls, dict(record(content, "accepted")))
        if not 1 <= acceptance.declared_units <= 10**9:
            raise MessageError("form: declared_units must be from 1 to 10^9")
        if not (acceptance.institution.isprintable() and 1 <= len(acceptance.institution) <= 64):
            raise MessageError("form: an institution's name must be 1 to 64 printable characters")
        if not _KEY.fullmatch(acceptance.update_key):
            raise MessageError("form: an update key is 32 bytes in hex")
        return acceptance


def declined() -> RecordDict:
    """Return the one answer to everything that an institution refuses; the reason stays at the institution."""
    return RecordDict({"declined": ConfigRecord()})


def waiting() -> RecordDict:
    """Return the answer to an offer that a person has to approve first, whatever the policy decides then."""
    return RecordDict({"waiting": ConfigRecord()})


def is_declined(content: RecordDict) -> bool:
    """Return whether a reply is the answer `declined`."""
    return list(content) == ["declined"]


def content_of(reply: Message) -> RecordDict:
    """Return a reply's records.

    Raises:
        VersionError: the institution runs other versions.
        MessageError: Flower reports an error. Its text is left out: it may be private.
    """
    if reply.has_error():
        raise MessageError(f"error {reply.error.code}")
    if list(reply.content) == list(other_versions()):
        require_same(record(reply.content, "version"), "the institution")
    return reply.content


@dataclass(frozen=True)
class Rehearsed:
    """An institution's answer to a rehearsal: its acceptance of the offer, and the update that it computed."""

    acceptance: Acceptance
    payload: bytes

    def content(self) -> RecordDict:
        """Return it as records of a Flower message."""
        content = self.acceptance.content()
        content["rehearsed"] = ConfigRecord({"safetensors": self.payload})
        return content

    @classmethod
    def from_content(cls, content: RecordDict) -> "Rehearsed":
        """Make it from the unchecked records of a reply; `MessageError` for another form."""
        payload = record(content, "rehearsed").get("safetensors")
        if not isinstance(payload, bytes):
            raise MessageError("form: not the update of a rehearsal")
        return cls(Acceptance.from_content(content), payload)
