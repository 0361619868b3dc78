"""The asks of a round: one ask, and a message with it for each institution."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from flwr.app import Message

from confide.common.protocol.asks import Ask
from confide.common.protocol.sum_messages import SumAsk
from confide.common.protocol.wire import sha256
from confide.server.rounds.roster import Institution
from confide.server.rounds.run_context import Job


def make_ask(job: Job, number: int, payload: bytes = b"") -> Ask:
    """Return the ask of a round, or the offer if ``number`` is 0. It is open for the run's ``deadline_seconds``."""
    study, run_json = job.run.study.name, job.run.canonical_json()
    hashes = {"run_sha256": sha256(run_json.encode()), "input_sha256": sha256(payload)}
    deadline = job.clock.now() + job.run.federation.deadline_seconds
    return Ask(study, job.lineage, number, run_json, **hashes, deadline_unix=deadline, adapter=payload)


def messages_of(
    ask: Ask | SumAsk, kind: str, institutions: Mapping[int, Institution], seconds: float
) -> Iterator[Message]:
    """Yield one message for each institution. They differ only in the receipt of its own last update."""
    for node, institution in institutions.items():
        content = replace(ask, receipt=institution.receipt).content()
        yield Message(content, node, kind, ttl=seconds + 600, group_id=str(ask.round))


def record_asks(job: Job, event: str, what: str, number: int, institutions: Iterable[Institution]) -> None:
    """Count asks and write them down before they go out, so that what was asked is known after any crash."""
    asked = list(institutions)
    job.emit({"event": event, "what": what, "round": number, "institutions": [item.name for item in asked]})
    for institution in asked:
        institution.ask(what, number, job.run)


def recording_repeats(job: Job, what: str, asked: Mapping[int, Institution]) -> Callable[[Message], None]:
    """Return a function that counts an ask which goes out once more."""

    def record(message: Message) -> None:
        record_asks(job, "asked_again", what, int(message.metadata.group_id), [asked[message.metadata.dst_node_id]])

    return record
