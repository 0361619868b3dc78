"""The state that an interrupted run had reached, and the round at which it continues."""

from dataclasses import dataclass, field, replace
from typing import Any

from confide.common.config.sections import FederationSection
from confide.common.protocol.wire import MessageError
from confide.server.rounds.checkpoint import Saved
from confide.server.rounds.roster import Institution, Members


@dataclass(frozen=True)
class Resumed:
    """The state that an interrupted run had reached.

    Attributes:
        saved: the last whole round; None if none was saved.
        damaged: accepted updates of later rounds whose tensors are lost. Only these are accepted for them again.
        institutions: all participants by name, with their asks and the outcomes.
        lines: lines of metrics.jsonl, one for each round that ended.
    """

    saved: Saved | None = None
    damaged: dict[int, list[dict[str, str]]] = field(default_factory=dict)
    institutions: dict[str, Institution] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def ended(self, federation: FederationSection) -> int:
        """Return the last round that is not repeated: the saved one, or the last of those without a quorum after it.

        A repeated round that now finds a quorum would change the input of the round that was open. The answers that
        institutions have sealed for that one would be lost. Without a saved round the last round is repeated, for it
        holds all that the run can still learn.
        """
        accepted = {line["round"]: line["accepted"] for line in self.lines}
        number, last = (self.saved.number, federation.num_rounds) if self.saved else (0, federation.num_rounds - 1)
        while number < last and accepted.get(number + 1, federation.min_clients) < federation.min_clients:
            number += 1
        return number

    def everybody(self, federation: FederationSection) -> list[Institution]:
        """Return all participants, without the outcomes of rounds that are repeated."""
        for institution in self.institutions.values():
            institution.forget_from_round(self.ended(federation) + 1)
        return list(self.institutions.values())

    def without_its_end(self) -> Saved | None:
        """Return the saved round if a crash came between its checkpoint and its line in metrics.jsonl."""
        known = {line["round"] for line in self.lines}
        return self.saved if self.saved and self.saved.number not in known else None

    def require_known(self, number: int, institution: str, payload_sha256: str) -> None:
        """Check that a round with lost tensors takes only updates accepted then; `MessageError` for another."""
        known = self.damaged.get(number)
        if known is not None and {"institution": institution, "payload_sha256": payload_sha256} not in known:
            raise MessageError("another update than the one that was accepted before the checkpoint was damaged")

    def members(self, members: Members | None) -> dict[int, Institution]:
        """Return participants that are still approved, by node. A run with no round left asks only these."""
        return {
            node: replace(self.institutions[member.institution], update_key=member.update_key)
            for node, member in (members or {}).items()
            if member.institution in self.institutions
        }
