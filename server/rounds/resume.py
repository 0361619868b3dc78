"""What an interrupted run had reached, and where it goes on."""

from dataclasses import dataclass, field, replace
from typing import Any

from confide.common.config.sections import FederationSection
from confide.common.protocol.wire import MessageError
from confide.server.rounds.checkpoint import Saved
from confide.server.rounds.roster import Institution, Members


@dataclass(frozen=True)
class Resumed:
    """What an interrupted run had reached.

    Attributes:
        saved: the last whole round; None: none was saved.
        damaged: what was accepted in later rounds whose tensors are lost: nothing else is accepted for them again.
        institutions: everybody who took part in it, by name, with what was asked of each and what became of it.
        lines: of metrics.jsonl, one for each round that came to its end.
    """

    saved: Saved | None = None
    damaged: dict[int, list[dict[str, str]]] = field(default_factory=dict)
    institutions: dict[str, Institution] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def ended(self, federation: FederationSection) -> int:
        """The last round that is not asked again: the one that was saved, and those after it that had no quorum.

        Were these asked again, one with a quorum now would change the input of the round that was open, and answers
        that institutions have sealed for that would be lost to them. Without a saved round the last one is asked again:
        all that the run can still learn is in it.
        """
        accepted = {line["round"]: line["accepted"] for line in self.lines}
        number, last = (self.saved.number, federation.num_rounds) if self.saved else (0, federation.num_rounds - 1)
        while number < last and accepted.get(number + 1, federation.min_clients) < federation.min_clients:
            number += 1
        return number

    def everybody(self, federation: FederationSection) -> list[Institution]:
        """Who took part; what became of rounds that are asked again is forgotten."""
        for institution in self.institutions.values():
            institution.goes_back(self.ended(federation) + 1)
        return list(self.institutions.values())

    def without_its_end(self) -> Saved | None:
        """The saved round, where a crash came between its checkpoint and its line in metrics.jsonl."""
        known = {line["round"] for line in self.lines}
        return self.saved if self.saved and self.saved.number not in known else None

    def require_known(self, number: int, institution: str, payload_sha256: str) -> None:
        """Of a round whose tensors were lost, take nothing but what was accepted then; `MessageError` for another."""
        known = self.damaged.get(number)
        if known is not None and {"institution": institution, "payload_sha256": payload_sha256} not in known:
            raise MessageError("another update than the one that was accepted before the checkpoint was damaged")

    def members(self, members: Members | None) -> dict[int, Institution]:
        """Who took part and is approved still, by node: whom a run that has no round left may ask, without an offer."""
        return {
            node: replace(self.institutions[member.institution], update_key=member.update_key)
            for node, member in (members or {}).items()
            if member.institution in self.institutions
        }
