"""The answer to a rehearsal: what an acceptance says, and an update from made-up records.

It has no envelope and no signature: an institution signs nothing but what its ledger was charged for.
"""

from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict

from confide.common.messages import Acceptance
from confide.common.wire import MessageError, record


@dataclass(frozen=True)
class Rehearsed:
    """What an institution would say to the offer, and what it computed."""

    acceptance: Acceptance
    payload: bytes

    def content(self) -> RecordDict:
        """As records of a Flower message."""
        content = self.acceptance.content()
        content["rehearsed"] = ConfigRecord({"safetensors": self.payload})
        return content

    @classmethod
    def from_content(cls, content: RecordDict) -> "Rehearsed":
        """From records of a reply that nobody has checked yet; `MessageError` for another form."""
        payload = record(content, "rehearsed").get("safetensors")
        if not isinstance(payload, bytes):
            raise MessageError("form: not the update of a rehearsal")
        return cls(Acceptance.from_content(content), payload)
