"""The messages of a secure sum.

The first exchange is the "train" ask of any round; its answer holds ConfigRecord `share`. The second is a "query.sum"
message with ConfigRecords `ask` and `sum`; its answer holds ConfigRecord `masked`. Either is `declined` and no more
where an institution refuses.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from confide.common.config.run import MAX_RUN_BYTES
from confide.common.protocol.asks import Ask
from confide.common.protocol.secure_sum import MAX_STATEMENT_BYTES, Shared, ShareEnvelope, SignedShare, SumEnvelope
from confide.common.protocol.versions import own_versions, require_same
from confide.common.protocol.wire import SIGNATURE, MessageError, json_object, record, sha256, typed


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
        values: dict[str, Any] = dict(record(content, "ask"))
        require_same(values, "the server")
        values = {key: value for key, value in values.items() if key not in own_versions()}
        values["statement"] = record(content, "sum").get("statement")
        ask: SumAsk = typed(cls, values)
        if len(ask.run_json.encode()) > MAX_RUN_BYTES or sha256(ask.run_json.encode()) != ask.run_sha256:
            raise MessageError("run_sha256 does not match the run")
        if len(ask.statement) > MAX_STATEMENT_BYTES:
            raise MessageError("form: not a statement")
        return ask


def seal_share(ask: Ask, names: tuple[str, str], mask_key: str, ledger_head: str) -> ShareEnvelope:
    """Return the envelope of a share for an ask; ``names``: institution, hash of its base."""
    return ShareEnvelope(
        study=ask.study,
        lineage=ask.lineage,
        what="share",
        round=ask.round,
        institution=names[0],
        run_sha256=ask.run_sha256,
        base_sha256=names[1],
        input_sha256=ask.input_sha256,
        mask_key=mask_key,
        ledger_head=ledger_head,
    )


def seal_sum(ask: SumAsk, names: tuple[str, str], numbers: bytes, ledger_head: str) -> SumEnvelope:
    """Return the envelope of a masked share for an ask; ``names``: institution, hash of its base."""
    return SumEnvelope(
        study=ask.study,
        lineage=ask.lineage,
        what="sum",
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
    share: SignedShare = typed(SignedShare, json_object(content.decode()))
    return share


@dataclass(frozen=True)
class Masked:
    """An institution's answer to the second exchange: envelope, signature of its text in hex, masked share."""

    envelope: SumEnvelope
    signature: str
    payload: bytes

    def content(self) -> RecordDict:
        """Return it as records of a Flower message."""
        values: dict[str, Any] = {"envelope": self.envelope.text(), "signature": self.signature}
        return RecordDict({"masked": ConfigRecord({"payload": self.payload, **values})})

    @classmethod
    def from_content(cls, content: RecordDict) -> "Masked":
        """Make it from the unchecked records of a reply.

        Raises:
            MessageError: the form is wrong, or the payload does not match its envelope.
        """
        values = record(content, "masked")
        payload = values.get("payload")
        if not isinstance(payload, bytes) or len(values) != 3:
            raise MessageError("form: not a masked share")
        envelope, signature = _signed(values.get("envelope"), values.get("signature"))
        if sha256(payload) != envelope.payload_sha256:
            raise MessageError("payload_sha256 does not match the payload")
        return cls(envelope, signature, payload)

    def to_bytes(self) -> bytes:
        """Return it as the bytes of a file: the receipt's line, then the payload."""
        return self.receipt().encode() + b"\n" + self.payload

    @classmethod
    def from_bytes(cls, content: bytes) -> "Masked":
        """Make it from the bytes that `to_bytes` gave; `MessageError` for others."""
        head, _, payload = content.partition(b"\n")
        return cls(*read_sum_receipt(head.decode()), payload)

    def receipt(self) -> str:
        """Return the receipt with which a server shows that it has the answer: envelope and signature, as JSON."""
        return json.dumps({"envelope": self.envelope.text(), "signature": self.signature})

    def numbers(self, count: int) -> Shared:
        """Return the payload as numbers modulo 2**32, shape ``(count,)``; `MessageError` for another length."""
        if len(self.payload) != 4 * count:
            raise MessageError(f"size: {len(self.payload)} bytes, expected {4 * count}")
        return np.frombuffer(self.payload, dtype="<u4").astype(np.uint32)


def read_sum_receipt(text: str) -> tuple[SumEnvelope, str]:
    """Return envelope and signature of a masked share's receipt, the signature unchecked; `MessageError` else."""
    values = json_object(text)
    return _signed(values.get("envelope"), values.get("signature"))


def _signed(envelope: Any, signature: Any) -> tuple[SumEnvelope, str]:
    if not (isinstance(envelope, str) and isinstance(signature, str) and len(envelope) < 4096):
        raise MessageError("form: not an envelope")
    if not SIGNATURE.fullmatch(signature):
        raise MessageError("form: a signature is 64 bytes in hex")
    parsed: SumEnvelope = typed(SumEnvelope, json_object(envelope))
    return parsed, signature
