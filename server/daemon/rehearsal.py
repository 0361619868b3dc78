"""A rehearsal: one round over the network on made-up records. It charges, averages and keeps nothing.

In a secure sum the institutions then mask zeros for each other. If their sum is zero, their masks cancel.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from confide.common.config.run import RunConfig
from confide.common.config.sections import SECURE_SUM
from confide.common.errors import PolicyError
from confide.common.protocol.answers import Rehearsed
from confide.common.protocol.asks import Ask
from confide.common.protocol.gate import GateError
from confide.common.protocol.secure_sum import REHEARSAL, Shared, SignedShare, Statement, total
from confide.common.protocol.sum_messages import SumAsk, ask_for_sum
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
from confide.server.rounds.participation import require_room
from confide.server.rounds.roster import Institution, Members, check_masked, check_share, enrol
from confide.server.rounds.run_context import Event

_GOOD = "answered"


@dataclass(frozen=True)
class _Good:
    """An institution that answered, and in a secure sum the envelope of its share of zeros."""

    institution: Institution
    share: SignedShare | None = None


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
        PolicyError: fewer institutions than the run needs could take part, or their masked zeros give no sum of zero.
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
    """Ask every member once, and in a secure sum those that answered for masked zeros.

    Returns:
        The number of institutions whose answer a round would have taken.

    Raises:
        PolicyError: a member of the sum did not mask, or the sum is not zero.
    """
    members, seconds = rehearsal.members, rehearsal.run.federation.deadline_seconds
    nodes = wait_for_nodes(grid, len(members), clock.now() + CONNECT_SECONDS, clock, members, rehearsal.is_over)
    began, silent, good = clock.now(), dict(members), dict[int, _Good]()
    ask = _ask(rehearsal, began + seconds)
    asks = _messages(ask, "query.rehearse", nodes, seconds)
    for reply in collect(grid, asks, ask.deadline_unix, clock, is_over=rehearsal.is_over):
        node, answer = reply.metadata.src_node_id, _judge(reply, rehearsal, ask)
        if isinstance(answer, _Good):
            good[node] = answer
        told = _GOOD if isinstance(answer, _Good) else answer
        emit(_event(silent.pop(node).institution, told, clock.now() - began))
    for node, member in silent.items():
        emit(_event(member.institution, NO_ANSWER if node in nodes else NOT_CONNECTED, None))
    has_quorum = len(good) >= rehearsal.run.federation.min_clients
    if rehearsal.run.federation.aggregation == SECURE_SUM and has_quorum and not rehearsal.is_over():
        _require_zero(rehearsal, grid, clock, emit, ask, good)
    return len(good)


def _ask(rehearsal: Rehearsal, deadline: float) -> Ask:
    run = rehearsal.run
    run_json, payload = run.canonical_json(), encode(rehearsal.initial, run.federation.transfer)
    hashes = {"run_sha256": run.sha256(), "input_sha256": sha256(payload)}
    return Ask(run.study.name, rehearsal.lineage, 1, run_json, **hashes, deadline_unix=deadline, adapter=payload)


def _messages(ask: Ask | SumAsk, kind: str, nodes: Iterable[int], seconds: float) -> list[Message]:
    return [Message(ask.content(), node, kind, ttl=seconds + 600, group_id="1") for node in nodes]


def _judge(reply: Message, rehearsal: Rehearsal, ask: Ask) -> "_Good | str":
    """Judge an answer with every check of a round. Only the envelopes of a secure sum are signed in a rehearsal."""
    taking_part, others = enrol([reply], rehearsal.members, rehearsal.run)
    if others:
        return others[reply.metadata.src_node_id]
    [institution], run, shapes = taking_part.values(), rehearsal.run, schema_of(rehearsal.initial)
    try:
        if run.federation.aggregation == SECURE_SUM:
            return _Good(institution, check_share(reply, ask, institution, run, REHEARSAL))
        payload = Rehearsed.from_content(reply.content).payload
        decode(payload, shapes, run.federation.transfer, institution.norm_bound(run, shapes))
    except (GateError, MessageError) as error:
        return f"refused by the gate: {error}"
    return _Good(institution)


def _require_zero(
    rehearsal: Rehearsal,
    grid: Grid,
    clock: Clock,
    emit: Callable[[Event], None],
    first: Ask,
    members: Mapping[int, _Good],
) -> None:
    """Show the statement to its members, and add up the zeros that each has masked.

    A rehearsal that an operator stops meanwhile tells nothing of the sum.

    Raises:
        PolicyError: a member did not mask, or the sum is not zero.
    """
    size, seconds = sum(value.size for value in rehearsal.initial.values()), rehearsal.run.federation.sum_seconds
    require_room([one.institution for one in members.values()], rehearsal.run, size)
    statement, began = Statement.of(one.share for one in members.values() if one.share), clock.now()
    ask, shares = ask_for_sum(first, statement, began + seconds), list[Shared]()
    missing = {one.institution.name: NO_ANSWER for one in members.values()}
    messages = _messages(ask, "query.rehearse_sum", members, seconds)
    for reply in collect(grid, messages, ask.deadline_unix, clock, is_over=rehearsal.is_over):
        institution = members[reply.metadata.src_node_id].institution
        try:
            shares.append(check_masked(reply, ask, institution, rehearsal.run, size, REHEARSAL).numbers(size))
            del missing[institution.name]
        except MessageError as error:
            missing[institution.name] = str(error)
    if rehearsal.is_over():
        return
    problem = _problem(missing, shares)
    names = ", ".join(sorted(one.institution.name for one in members.values()))
    answer = f"the sum of {names} {problem or 'is zero: their masks cancel'}"
    emit({"event": "rehearsed_sum", "answer": answer, "seconds": round(clock.now() - began, 1)})
    if problem:
        raise PolicyError(answer)


def _problem(missing: Mapping[str, str], shares: list[Shared]) -> str | None:
    """Return what is wrong with a sum of masked zeros; None if it is zero."""
    if missing:
        return f"cannot be read: {'; '.join(f'{name}: {why}' for name, why in sorted(missing.items()))}"
    if not total(shares).any():
        return None
    return (
        "is not zero: one of them masks another way, or sent something else; install the same version of Confide at "
        "all of them, then rehearse again"
    )


def _event(institution: str, answer: str, seconds: float | None) -> dict[str, Any]:
    event = {"event": "rehearsed", "institution": institution, "answer": answer}
    return event if seconds is None else {**event, "seconds": round(seconds, 1)}
