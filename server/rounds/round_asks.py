"""The asks of a round: one ask, and a message with it for each institution."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from flwr.app import Message

from confide.common.protocol.asks import Ask
from confide.common.protocol.wire import sha256
from confide.server.rounds.roster import Institution
from confide.server.rounds.run_context import Job


def make_ask(job: Job, number: int, payload: bytes = b"") -> Ask:
    """Return the ask of a round, or the offer if ``number`` is 0. It is open for the run's ``deadline_seconds``."""
    study, run_json = job.run.study.name, job.run.canonical_json()
    hashes = {"plan_sha256": sha256(run_json.encode()), "input_sha256": sha256(payload)}
    deadline = job.clock.now() + job.run.federation.deadline_seconds
    return Ask(study, job.lineage, number, run_json, **hashes, deadline_unix=deadline, adapter=payload)


def messages_of(ask: Ask, kind: str, institutions: Mapping[int, Institution], seconds: float) -> Iterator[Message]:
    """Yield one message for each institution. They differ only in the receipt of its own last update."""
    for node, institution in institutions.items():
        content = replace(ask, receipt=institution.receipt).content()
        yield Message(content, node, kind, ttl=seconds + 600, group_id=str(ask.round))
