"""Replies to the asks of one round."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from confide.common.config.run import RunConfig
from confide.common.protocol.answers import Update
from confide.common.protocol.gate import load_state
from confide.common.protocol.sum_messages import Masked
from confide.server.rounds.collect import NO_ANSWER, NOT_ASKED, NOT_CONNECTED
from confide.server.rounds.roster import Institution
from confide.server.rounds.run_context import Event, Job

_MAX_UNITS = 1e9  # bound on a validation count


@dataclass
class Answers:
    """Replies of one round: accepted, dropped, validation counts.

    Attributes:
        accepted: ``{"institution", "payload_sha256"}`` of every update.
        dropped: name and reason of every other update.
        validation: noised counts by name.
    """

    accepted: list[dict[str, str]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    validation: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def remembered(cls, number: int, accepted: list[dict[str, str]], institutions: Iterable[Institution]) -> "Answers":
        """Return the replies of a round from before a crash, by its checkpoint and the institutions' outcomes."""
        reasons = [(item.name, item.outcomes.get(number)) for item in institutions]
        return cls(accepted, [f"{name}: {reason}" for name, reason in reasons if reason is not None])

    def accept(self, number: int, institution: Institution, update: Update | Masked) -> None:
        """Accept an update."""
        institution.outcomes[number], institution.receipt = None, update.receipt()
        self.accepted.append({"institution": institution.name, "payload_sha256": update.envelope.payload_sha256})

    def drop(self, number: int, institution: Institution, reason: str) -> None:
        """Leave an institution out of the round."""
        institution.outcomes[number] = reason
        self.dropped.append(f"{institution.name}: {reason}")

    def take_counts(self, name: str, payload: bytes) -> None:
        """Take in an institution's noised validation counts; `GateError` for a payload that holds none."""
        right, wrong = (float(value) for value in load_state(payload, {"cells": (2,)}, _MAX_UNITS)["cells"])
        self.validation[name] = {"right": right, "wrong": wrong}

    def event(self, number: int, run: RunConfig, institutions: list[Institution]) -> Event:
        """Return the event of the round's end, for events.jsonl and metrics.jsonl."""
        event: Event = {"event": "round", "round": number, "accepted": len(self.accepted), "dropped": self.dropped}
        if self.validation:
            event["validation"] = self.validation
        # Computed from public numbers: only the institution may know how many units were really drawn.
        names = {item["institution"] for item in self.accepted}
        declared = sum(item.declared_units for item in institutions if item.name in names)
        event["expected_units"] = round(run.local.steps * run.local.sampling_probability * declared, 1)
        for what in ("num_releases", "num_steps"):
            event[what] = {item.name: getattr(item, what) for item in institutions}
        return event


def drop(job: Job, answers: Answers, number: int, institution: Institution, reason: str) -> None:
    """Leave an institution out of a round, and write down why."""
    answers.drop(number, institution, reason)
    job.emit({"event": "dropped", "round": number, "institution": institution.name, "reason": reason})


def drop_absent(
    job: Job, answers: Answers, number: int, silent: Iterable[Institution], away: Iterable[Institution]
) -> None:
    """Leave out those that were asked and did not answer, and those that were not asked."""
    for institution in silent:
        drop(job, answers, number, institution, NO_ANSWER)
    for institution in away:
        drop(job, answers, number, institution, NOT_ASKED if institution.connected else NOT_CONNECTED)
