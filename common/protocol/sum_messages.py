"""The messages of a secure sum.

The first exchange is the "train" ask of any round; its answer holds ConfigRecord `share`. The second is a "query.sum"
message with ConfigRecords `ask` and `sum`; its answer holds ConfigRecord `masked`. Either is `declined` and no more
where an institution refuses.

A rehearsal has the same two: "query.rehearse", whose answer also accepts the run, and "query.rehearse_sum".
"""

import json
from dataclasses import asdict, dataclass

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from confide.common.protocol.asks import Ask, asked_values, require_run_hash
from confide.common.protocol.secure_sum import (
    MAX_STATEMENT_BYTES,
    Shared,
    ShareEnvelope,
    SignedShare,
    Statement,
    SumEnvelope,
)
from confide.common.protocol.signed import Signed, read_file, read_record
from confide.common.protocol.versions import own_versions
from confide.common.protocol.wire import MessageError, json_object, record, sha256, typed


@dataclass(frozen=True)
class SumAsk:
    """The server's ask of every member of a sum: the statement, and the round that it belongs to."""

    study: str
    lineage: str
    round: int
    run_json: str
    run_sha256: str
    input_sha256: str  # of the adapter's bytes, as the first exchange had them
    deadline_unix: float
    statement: str
    receipt: str = ""

    def content(self) -> RecordDict:
        """Return it as records of a Flower message."""
        values = {key: value for key, value in asdict(self).items() if key != "statement"}
        ask = ConfigRecord({**own_versions(), **values})
        return RecordDict({"ask": ask, "sum": ConfigRecord({"statement": self.statement})})

    @classmethod
    def from_content(cls, content: RecordDict) -> "SumAsk":
        """Make it from the unchecked records of a message.

        Raises:
            VersionError: the server runs other versions; this is checked before anything else.
            MessageError: the form is wrong, or a hash does not match.
        """
        values = asked_values(content)
        ask: SumAsk = typed(cls, {**values, "statement": record(content, "sum").get("statement")})
        require_run_hash(ask.run_json, ask.run_sha256)
        if len(ask.statement) > MAX_STATEMENT_BYTES:
            raise MessageError("form: not a statement")
        return ask


def ask_for_sum(ask: Ask, statement: Statement, deadline_unix: float) -> SumAsk:
    """Return the ask of the second exchange of a round, from that of the first."""
    asked = {name: getattr(ask, name) for name in ("study", "lineage", "round", "run_json", "run_sha256")}
    return SumAsk(**asked, input_sha256=ask.input_sha256, deadline_unix=deadline_unix, statement=statement.text())


def seal_share(
    ask: Ask | SumAsk, names: tuple[str, str], mask_key: str, ledger_head: str, what: str = "share"
) -> ShareEnvelope:
    """Return the envelope of a share for an ask, or for the sum of that round; ``names``: institution, base's hash."""
    return ShareEnvelope(
        study=ask.study,
        lineage=ask.lineage,
        what=what,
        round=ask.round,
        institution=names[0],
        run_sha256=ask.run_sha256,
        base_sha256=names[1],
        input_sha256=ask.input_sha256,
        mask_key=mask_key,
        ledger_head=ledger_head,
    )


def seal_sum(ask: SumAsk, names: tuple[str, str], numbers: bytes, ledger_head: str, what: str = "sum") -> SumEnvelope:
    """Return the envelope of a masked share for an ask; ``names``: institution, hash of its base."""
    return SumEnvelope(
        study=ask.study,
        lineage=ask.lineage,
        what=what,
        round=ask.round,
        institution=names[0],
        run_sha256=ask.run_sha256,
        base_sha256=names[1],
        input_sha256=ask.input_sha256,
        statement_sha256=sha256(ask.statement.encode()),
        payload_sha256=sha256(numbers),
        ledger_head=ledger_head,
    )


def share_content(share: SignedShare) -> RecordDict:
    """Return the answer to the first exchange as records of a Flower message."""
    return RecordDict({"share": ConfigRecord({"envelope": share.text, "signature": share.signature})})


def share_from(content: RecordDict) -> SignedShare:
    """Return the answer to the first exchange, its signature unchecked; `MessageError` for another form."""
    values = record(content, "share")
    envelope, signature = values.get("envelope"), values.get("signature")
    if len(values) != 2 or not isinstance(envelope, str) or not isinstance(signature, str):
        raise MessageError("form: not the envelope of a share")
    share = SignedShare(envelope, signature)
    share.envelope()
    return share


def share_to_bytes(share: SignedShare) -> bytes:
    """Return the answer as the bytes of a file."""
    return json.dumps(asdict(share)).encode()


def share_from_bytes(content: bytes) -> SignedShare:
    """Return the answer in the bytes that `share_to_bytes` gave; `MessageError` for others."""
    share: SignedShare = typed(SignedShare, json_object(content.decode(errors="replace")))
    return share


class Masked(Signed[SumEnvelope]):
    """An institution's answer to the second exchange; its payload is the masked share."""

    def content(self) -> RecordDict:
        """Return it as records of a Flower message."""
        return RecordDict({"masked": self.record("payload")})

    @classmethod
    def from_content(cls, content: RecordDict) -> "Masked":
        """Make it from the unchecked records of a reply; `MessageError` as in `signed.read_record`."""
        return cls(*read_record(SumEnvelope, content, ("masked", "payload")))

    @classmethod
    def from_bytes(cls, content: bytes) -> "Masked":
        """Make it from the bytes of a file; `MessageError` for others."""
        return cls(*read_file(SumEnvelope, content))

    def numbers(self, count: int) -> Shared:
        """Return the payload as numbers modulo 2**32, shape ``(count,)``; `MessageError` for another length."""
        if len(self.payload) != 4 * count:
            raise MessageError(f"size: {len(self.payload)} bytes, expected {4 * count}")
        return np.frombuffer(self.payload, dtype="<u4").astype(np.uint32)
