"""One training round: draw institutions, ask them, gate and aggregate their updates, apply the result."""

from collections.abc import Iterable
from typing import NamedTuple

from flwr.app import Message
from flwr.serverapp import Grid

from confide.common.protocol.asks import Ask
from confide.common.protocol.gate import GateError
from confide.common.protocol.transfer import decode
from confide.common.protocol.wire import MessageError
from confide.common.tensors import State, schema_of
from confide.common.training import optimizer
from confide.server.aggregation import RULES
from confide.server.rounds.collect import collect, to_send
from confide.server.rounds.offer import connected_quorum
from confide.server.rounds.participation import draw
from confide.server.rounds.roster import Institution, check_answer
from confide.server.rounds.round_answers import Answers, drop, drop_absent
from confide.server.rounds.round_asks import make_ask, messages_of, record_asks, recording_repeats
from confide.server.rounds.run_context import Job, RunState


class Chosen(NamedTuple):
    """The institutions that a round draws, by node.

    Attributes:
        asked: connected, and asked.
        away: not asked, because they are offline or too few are connected.
    """

    asked: dict[int, Institution]
    away: dict[int, Institution]


def choose(state: RunState, grid: Grid, number: int) -> Chosen:
    """Draw the institutions of a round, and wait for those that are connected."""
    run, names = state.job.run, [item.name for item in state.institutions.values()]
    drawn = draw(names, run.federation, run.study.seed, number)
    chosen = {node: item for node, item in state.institutions.items() if item.name in drawn - state.benched}
    asked = connected_quorum(state.job, grid, chosen)
    return Chosen(asked, {node: item for node, item in chosen.items() if node not in asked})


def train(state: RunState, grid: Grid, number: int, chosen: Chosen) -> Answers:
    """Send one ask to each institution, and aggregate the updates that arrive in time.

    Returns:
        The replies. With a quorum of accepted updates ``state.trained`` is the state after the round.

    Raises:
        ConfideError: the adapter has grown too large to send.
    """
    job, run = state.job, state.job.run
    ask = make_ask(job, number, to_send(state.trained.adapter, run.federation))
    messages = list(messages_of(ask, "train", chosen.asked, run.federation.deadline_seconds))
    record_asks(job, "round_started", "update", number, chosen.asked.values())
    deadline = job.clock.now() + run.federation.deadline_seconds
    replies = collect(grid, messages, deadline, job.clock, recording_repeats(job, "update", chosen.asked))
    answers, update = _aggregate(job, ask, replies, chosen)
    if update is not None:
        state.trained = optimizer.apply(state.trained, update, run.federation)
    return answers


def _aggregate(job: Job, ask: Ask, replies: Iterable[Message], chosen: Chosen) -> tuple[Answers, State | None]:
    """Gate and aggregate replies one by one; drop a bad one with its reason. The update is None without a quorum."""
    run, rule = job.run, RULES[job.run.federation.aggregation]
    total, answers, silent = rule.init(), Answers(), dict(chosen.asked)
    for reply in replies:
        institution = silent.pop(reply.metadata.src_node_id)
        try:
            update = _take(job, ask, reply, institution, answers)
        except (GateError, MessageError) as error:
            drop(job, answers, ask.round, institution, str(error))
            continue
        weight = float(institution.declared_units) if run.federation.weights == "declared" else 1.0
        total = rule.add(total, update, weight)
        job.emit({"event": "accepted", "round": ask.round, "institution": institution.name})
    drop_absent(job, answers, ask.round, silent.values(), chosen.away.values())
    if (accepted := len(answers.accepted)) < run.federation.min_clients:
        job.emit({"event": "no_quorum", "round": ask.round, "accepted": accepted})
        return answers, None
    return answers, rule.result(total)


def _take(job: Job, ask: Ask, reply: Message, institution: Institution, answers: Answers) -> State:
    """Return the update in a reply, which is accepted; `GateError` or `MessageError` says why one is not."""
    run, shapes = job.run, schema_of(job.initial)
    update = check_answer(reply, ask, "update", institution, run)
    job.resumed.require_known(ask.round, institution.name, update.envelope.payload_sha256)
    state = decode(update.payload, shapes, run.federation.transfer, institution.norm_bound(run, shapes))
    answers.accept(ask.round, institution, update)
    return state
