"""A rehearsal: one round over the network on made-up records. It charges, averages and keeps nothing."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from confide.common.config.run import RunConfig
from confide.common.errors import PolicyError
from confide.common.protocol.answers import Rehearsed
from confide.common.protocol.asks import Ask
from confide.common.protocol.gate import GateError
from confide.common.protocol.transfer import decode, encode
from confide.common.protocol.wire import MessageError, sha256
from confide.common.tensors import State, schema_of
from confide.server.daemon.server_state import ServerState
from confide.server.daemon.torch_child import Workshop
from confide.server.fleet.superlink import FlowerState, LinkGrid
from confide.server.home.queue import QueuedRun
from confide.server.results.run_directory import RunDirectory
from confide.server.rounds.collect import (
    CONNECT_SECONDS,
    NO_ANSWER,
    NOT_CONNECTED,
    Clock,
    SystemClock,
    collect,
    wait_for_nodes,
)
from confide.server.rounds.roster import Members, enrol
from confide.server.rounds.run_context import Event

_GOOD = "answered"


@dataclass(frozen=True)
class Rehearsal:
    """The subject of a rehearsal: a locked run, its start values and its members."""

    run: RunConfig
    lineage: str
    initial: State
    members: Members
    is_over: Callable[[], bool] = lambda: False  # true once an operator stops it


def rehearse(shared: ServerState, link: FlowerState, queued: QueuedRun) -> QueuedRun:
    """Carry out a rehearsal. The `events.jsonl` of its folder records what each institution did.

    Returns:
        The rehearsal, completed or stopped.

    Raises:
        PolicyError: fewer institutions than the run needs sent an update that passes the gate.
        ConfideError: the base model is missing, or the public records cannot be read.
    """
    run = shared.queue.run_of(queued)
    directory = RunDirectory.open(shared.home.runs / queued.name, run)
    with closing(Workshop(run, shared.home.folder)) as workshop:
        workshop.read_public()
        rehearsal = Rehearsal(
            run, queued.lineage, workshop.initial(), shared.members_of(run), lambda: shared.is_over(queued.name)
        )
    grid = LinkGrid(link)
    with link.run(grid):
        good = rehearse_round(rehearsal, grid, SystemClock(), directory.record)
    if shared.is_over(queued.name):
        return replace(queued, status="stopped", reason="before all had answered")
    if good < run.federation.min_clients:
        raise PolicyError(
            f"{good} of {len(rehearsal.members)} institutions could take part, federation.min_clients = "
            f"{run.federation.min_clients}"
        )
    return replace(queued, status="completed", reason="")


def rehearse_round(rehearsal: Rehearsal, grid: Grid, clock: Clock, emit: Callable[[Event], None]) -> int:
    """Ask every member once. Return how many sent an update that a round would have averaged."""
    members, seconds = rehearsal.members, rehearsal.run.federation.deadline_seconds
    nodes = wait_for_nodes(grid, len(members), clock.now() + CONNECT_SECONDS, clock, members, rehearsal.is_over)
    began, silent, good = clock.now(), dict(members), 0
    replies = collect(
        grid, list(_asks(rehearsal, nodes, began + seconds)), began + seconds, clock, is_over=rehearsal.is_over
    )
    for reply in replies:
        member, answer = silent.pop(reply.metadata.src_node_id), _judge(reply, rehearsal)
        good += answer == _GOOD
        emit(_event(member.institution, answer, clock.now() - began))
    for node, member in silent.items():
        emit(_event(member.institution, NO_ANSWER if node in nodes else NOT_CONNECTED, None))
    return good


def _asks(rehearsal: Rehearsal, nodes: list[int], deadline: float) -> Iterator[Message]:
    run = rehearsal.run
    run_json, payload = run.canonical_json(), encode(rehearsal.initial, run.federation.transfer)
    hashes = {"run_sha256": run.sha256(), "input_sha256": sha256(payload)}
    ask = Ask(run.study.name, rehearsal.lineage, 1, run_json, **hashes, deadline_unix=deadline, adapter=payload)
    for node in nodes:
        yield Message(ask.content(), node, "query.rehearse", ttl=run.federation.deadline_seconds + 600, group_id="1")


def _judge(reply: Message, rehearsal: Rehearsal) -> str:
    """Judge an answer with every check of a round except the signature: rehearsed answers are not signed."""
    taking_part, others = enrol([reply], rehearsal.members, rehearsal.run)
    if others:
        return others[reply.metadata.src_node_id]
    [institution], run, shapes = taking_part.values(), rehearsal.run, schema_of(rehearsal.initial)
    try:
        payload = Rehearsed.from_content(reply.content).payload
        decode(payload, shapes, run.federation.transfer, institution.norm_bound(run, shapes))
    except (GateError, MessageError) as error:
        return f"refused by the gate: {error}"
    return _GOOD


def _event(institution: str, answer: str, seconds: float | None) -> dict[str, Any]:
    event = {"event": "rehearsed", "institution": institution, "answer": answer}
    return event if seconds is None else {**event, "seconds": round(seconds, 1)}
