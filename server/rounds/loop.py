"""The round loop: the offer, then one round after the other, then the end of the run.

Flower has a class for this, `Strategy`, with a hook on either side of one exchange of messages. Our loop is made of
functions instead: it continues at any round, writes a checkpoint in each, and a round may have several exchanges.
"""

import time

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from confide.common.config.sections import SECURE_SUM
from confide.common.errors import ConfideError
from confide.server.rounds.collect import to_send
from confide.server.rounds.newcomers import Newcomers
from confide.server.rounds.offer import offer_run, wait_for_return
from confide.server.rounds.participation import require_room
from confide.server.rounds.roster import take_in
from confide.server.rounds.round_answers import Answers
from confide.server.rounds.round_asks import make_ask
from confide.server.rounds.run_context import RunState
from confide.server.rounds.secure_round import train_shares
from confide.server.rounds.training_round import choose, train
from confide.server.rounds.validation_round import validate

_ROUNDS_WITHOUT_QUORUM = 3  # in a row; then the run stops instead of spending on nothing


def make_server_app(state: RunState) -> ServerApp:
    """Return Flower's ServerApp that all three engines run. The caller reads results from the state afterwards."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run_rounds(state, grid)

    return app


def run_rounds(state: RunState, grid: Grid) -> None:
    """Offer the run and carry out its rounds. ``state.finished`` is False afterwards if an operator stopped it.

    Raises:
        PolicyError: too few institutions accepted, or a secure sum of them does not fit its grid. At a first offer
            nothing is charged yet.
        ConfideError: three rounds in a row had no quorum, or the adapter grew too large to send.
    """
    job, federation = state.job, state.job.run.federation
    if state.round >= federation.num_rounds and job.members is not None:  # nothing is left to agree to
        state.continue_with(job.resumed.members(job.members))
        wait_for_return(job, grid, state.institutions)
        _complete_saved_round(state, grid)
    else:
        require_room((), job.run, job.size)
        offered = offer_run(job, grid, make_ask(job, 0))
        if offered is None:
            return
        state.continue_with(offered.taking_part)
        job.emit(offered.event())
        offered.require(federation.min_clients)
        require_room(state.institutions.values(), job.run, job.size)
        _complete_saved_round(state, grid)
        _run_remaining(state, grid, Newcomers(job, offered))
    if state.round >= federation.num_rounds:
        _finish(state)


def _run_remaining(state: RunState, grid: Grid, newcomers: Newcomers) -> None:
    """Carry out the remaining rounds, until an operator stops the run."""
    job, federation, failed = state.job, state.job.run.federation, 0
    for number in range(state.round + 1, federation.num_rounds + 1):
        _welcome(state, grid, newcomers, number)
        began, chosen = time.monotonic(), choose(state, grid, number)
        if job.is_stopped():
            return
        answers = (train_shares if federation.aggregation == SECURE_SUM else train)(state, grid, number, chosen)
        failed += 1
        if len(answers.accepted) >= federation.min_clients:
            failed = 0
            job.save(number, state.trained, answers.accepted)
            validate(state, grid, number, chosen.asked, answers)
        if failed == _ROUNDS_WITHOUT_QUORUM:
            raise ConfideError(
                f"round {number}: for the {failed}rd time in a row fewer than federation.min_clients = "
                f"{federation.min_clients} institutions answered; see events.jsonl for the reasons"
            )
        _end_round(state, number, answers, time.monotonic() - began)


def _welcome(state: RunState, grid: Grid, newcomers: Newcomers, number: int) -> None:
    """Take in institutions that have accepted since the run began, and offer it to others. No round waits for them."""
    may_return = [item for item in state.gone if item.asks]
    joined = newcomers.take(grid, number, [*state.institutions.values(), *may_return])
    state.institutions, state.gone = take_in(joined, state.institutions, state.gone)
    if number < state.job.run.federation.num_rounds:  # an institution takes part from the round after it accepts
        newcomers.offer(grid, make_ask(state.job, 0), state.institutions)


def _complete_saved_round(state: RunState, grid: Grid) -> None:
    """Repeat what a crash took of a round after its checkpoint: its validation counts and its event."""
    saved, began = state.job.resumed.without_its_end(), time.monotonic()
    if saved is not None:
        asked = {node: item for node, item in state.institutions.items() if item.asks["update", saved.number]}
        answers = Answers.remembered(saved.number, saved.accepted, state.everybody())
        validate(state, grid, saved.number, asked, answers)
        _end_round(state, saved.number, answers, time.monotonic() - began)


def _end_round(state: RunState, number: int, answers: Answers, seconds: float) -> None:
    job, run, event = state.job, state.job.run, answers.event(number, state.job.run, state.everybody())
    if job.evaluate and (number % run.evaluation.every == 0 or number == run.federation.num_rounds):
        state.scores = job.evaluate(state.trained.average)
        event["score"] = state.scores.as_json()
    state.round = number  # before the event: whoever receives it may stop the run
    job.emit({**event, "seconds": round(seconds, 3)})


def _finish(state: RunState) -> None:
    job, federation = state.job, state.job.run.federation
    if state.trained.round == 0:
        raise ConfideError(
            f"none of {federation.num_rounds} rounds had federation.min_clients = {federation.min_clients} good "
            "replies, so nothing was learnt; see events.jsonl for the reasons"
        )
    to_send(state.trained.average, federation)  # it is given out, and has to pass the same gate
    if state.scores is None and job.evaluate:  # the last round ended before a crash
        state.scores = job.evaluate(state.trained.average)
    state.finished = True
