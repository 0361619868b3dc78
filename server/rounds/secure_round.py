"""One training round as a secure sum: collect envelopes, fix the members, then add their masked shares."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from confide.common.config.run import make_plan
from confide.common.methods import is_added
from confide.common.privacy.plan import PrivacyPlan
from confide.common.protocol.asks import Ask
from confide.common.protocol.gate import GateError, bounded, sum_norm_bound
from confide.common.protocol.secure_sum import (
    Shared,
    SignedShare,
    Statement,
    as_signed,
    total,
)
from confide.common.protocol.sum_messages import Masked, SumAsk, ask_for_sum
from confide.common.protocol.wire import MessageError
from confide.common.tensors import State, alphabetical, schema_of, split
from confide.common.training import optimizer
from confide.server.rounds.collect import NO_ANSWER, collect, to_send
from confide.server.rounds.roster import Institution, check_masked, check_share
from confide.server.rounds.round_answers import Answers, drop, drop_absent
from confide.server.rounds.round_asks import make_ask, messages_of, record_asks, recording_repeats
from confide.server.rounds.run_context import Job, RunState
from confide.server.rounds.training_round import Chosen

_LEFT_OUT = "its envelope came, but it was not connected when the members were fixed"


@dataclass(frozen=True)
class _Sum:
    """One sum: its round's ask, its statement and its members by node."""

    ask: SumAsk
    statement: Statement
    members: Mapping[int, Institution]


def train_shares(state: RunState, grid: Grid, number: int, chosen: Chosen) -> Answers:
    """Carry out the two exchanges of a round.

    The statement of a round is written before it is shown, and there is one, for ever: after a crash the same members
    are asked for the same sum, and what they released comes again.

    Returns:
        The replies; ``accepted`` is empty unless all members of the sum answered. Then ``state.trained`` is the state
        after the round.
    """
    job, answers = state.job, Answers()
    ask = make_ask(job, number, to_send(state.trained.adapter, job.run.federation))
    statement = _kept(job, number) or _first_exchange(state, grid, ask, chosen, answers)
    if statement is None:
        return answers
    names = {member.envelope().institution for member in statement.members}
    if not names:
        job.emit({"event": "void", "round": number, "missing": []})
        return answers
    members = _members(state, names)
    closes = job.clock.now() + job.run.federation.sum_seconds
    round_sum = _Sum(ask_for_sum(ask, statement, closes), statement, members)
    shares = _second_exchange(job, grid, round_sum, answers)
    if len(shares) < len(names):
        _void(state, round_sum, names - {members[node].name for node in shares}, answers)
        return answers
    update = _update(job, round_sum, [masked.numbers(job.size) for masked in shares.values()])
    if update is None:
        for institution in members.values():
            drop(job, answers, number, institution, "the norm of the sum is above its bound")
        return answers
    for node, masked in shares.items():
        answers.accept(number, members[node], masked)
        job.emit({"event": "accepted", "round": number, "institution": members[node].name})
    state.trained = optimizer.apply(state.trained, update, job.run.federation)
    return answers


def _members(state: RunState, names: set[str]) -> dict[int, Institution]:
    """Return the members of a sum by node: also those who have not come back yet since the server was restarted.

    They hold their shares, and may come while the sum is open.
    """
    here = {node: item for node, item in state.institutions.items() if item.name in names}
    missing = names - {item.name for item in here.values()}
    away = state.job.resumed.members(state.job.members_now())
    return here | {node: item for node, item in away.items() if item.name in missing}


def _kept(job: Job, number: int) -> Statement | None:
    """Return the statement that was made before a crash; one without members if the disk has damaged it.

    The round is void then: some institutions may have answered it, and no other may be shown.
    """
    text = job.statements.get(number)
    if text is None:
        return None
    try:
        return Statement.of(Statement.from_text(text).members)
    except MessageError:
        return Statement(())


def _first_exchange(state: RunState, grid: Grid, ask: Ask, chosen: Chosen, answers: Answers) -> Statement | None:
    """Ask for envelopes and fix the members: those whose envelope is good and who are connected now."""
    job, federation = state.job, state.job.run.federation
    messages = list(messages_of(ask, "train", chosen.asked, federation.deadline_seconds))
    record_asks(job, "round_started", "update", ask.round, chosen.asked.values())
    deadline = job.clock.now() + federation.deadline_seconds
    shares, silent = dict[int, SignedShare](), dict(chosen.asked)
    for reply in collect(grid, messages, deadline, job.clock, recording_repeats(job, "update", chosen.asked)):
        institution = silent.pop(reply.metadata.src_node_id)
        try:
            share = check_share(reply, ask, institution, job.run)
            _require_another_key(share, shares.values())
            shares[reply.metadata.src_node_id] = share
        except MessageError as error:
            drop(job, answers, ask.round, institution, str(error))
    drop_absent(job, answers, ask.round, silent.values(), chosen.away.values())
    connected = set(grid.get_node_ids())
    for node in shares.keys() - connected:
        drop(job, answers, ask.round, chosen.asked[node], _LEFT_OUT)
    here = [share for node, share in shares.items() if node in connected]
    if len(here) < federation.min_clients:
        job.emit({"event": "no_quorum", "round": ask.round, "accepted": len(here)})
        return None
    statement = Statement.of(here)
    job.statements.put(ask.round, statement.text())
    return statement


def _require_another_key(share: SignedShare, others: Iterable[SignedShare]) -> None:
    """Check that no other share has this mask key: every honest member would refuse their common sum."""
    if share.envelope().mask_key in {other.envelope().mask_key for other in others}:
        raise MessageError("mask_key: that of another institution")


def _second_exchange(job: Job, grid: Grid, of: _Sum, answers: Answers) -> dict[int, Masked]:
    """Show the statement to its members. Return the masked shares that came, by node."""
    number, seconds = of.ask.round, job.run.federation.sum_seconds
    names = [item.name for item in of.members.values()]
    started = {"event": "sum_started", "round": number, "statement_sha256": of.statement.sha256()}
    job.emit({**started, "institutions": names})

    def record_repeat(message: Message) -> None:
        name = of.members[message.metadata.dst_node_id].name
        job.emit({"event": "sum_asked_again", "round": number, "institution": name})

    found, messages = dict[int, Masked](), list(messages_of(of.ask, "query.sum", of.members, seconds))
    for reply in collect(grid, messages, of.ask.deadline_unix, job.clock, record_repeat):
        node = reply.metadata.src_node_id
        try:
            masked = check_masked(reply, of.ask, of.members[node], job.run, job.size)
            job.resumed.require_known(number, of.members[node].name, masked.envelope.payload_sha256)
            found[node] = masked
        except MessageError as error:
            drop(job, answers, number, of.members[node], str(error))
    return found


def _void(state: RunState, of: _Sum, missing: set[str], answers: Answers) -> None:
    """End a round whose sum lacks a member: nothing can be read of the others' masked shares, and nothing is added."""
    number, told = of.ask.round, ", ".join(sorted(missing))
    state.job.emit({"event": "void", "round": number, "missing": sorted(missing)})
    for institution in of.members.values():
        if institution.outcomes.get(number) is None:
            reason = NO_ANSWER if institution.name in missing else f"the sum is void without {told}"
            drop(state.job, answers, number, institution, reason)
    asked = missing & {item.name for item in of.members.values()}
    left = [item.name for item in state.institutions.values() if item.name not in state.benched | asked]
    if asked and len(left) >= state.job.run.federation.min_clients:  # else it was the server's own network
        state.benched |= asked
        state.job.emit({"event": "benched", "round": number, "institutions": sorted(asked)})


def _update(job: Job, of: _Sum, shares: list[Shared]) -> State | None:
    """Return the sum as an update of the adapter; None if its norm is above what clip and noise allow."""
    run, shapes = job.run, schema_of(job.initial)
    declared = sum(item.declared_units for item in of.members.values())
    plan = make_plan(run, declared)
    if not isinstance(plan, PrivacyPlan) or plan.sharing is None:
        raise TypeError("a secure sum without shared noise")
    step = run.local.learning_rate * plan.clip_norm / 2**plan.sharing.grid_bits / plan.expected_batch_size
    change_P = (-step * as_signed(total(shares))).astype(np.float32)
    parts = split(change_P, alphabetical(shapes))
    weights = {name: np.float32(1.0 if is_added(name) else plan.head_weight) for name in shapes}
    update = {name: (parts[name] / weights[name]).astype(np.float32) for name in shapes}
    try:
        return bounded(update, sum_norm_bound(plan, len(shares), change_P.size, run.local.learning_rate))
    except GateError:
        job.emit({"event": "sum_rejected", "round": of.ask.round})
        return None
