"""One exchange of noised validation counts, in the rounds for which the run plans it."""

from collections.abc import Mapping

from flwr.serverapp import Grid

from confide.common.config.run import RunConfig
from confide.common.protocol.gate import GateError
from confide.common.protocol.wire import MessageError
from confide.server.rounds.collect import collect, to_send
from confide.server.rounds.roster import Institution, check_answer
from confide.server.rounds.round_answers import Answers
from confide.server.rounds.round_asks import make_ask, messages_of, record_asks, recording_repeats
from confide.server.rounds.run_context import RunState


def validate(state: RunState, grid: Grid, number: int, trained: Mapping[int, Institution], answers: Answers) -> None:
    """Ask for counts of the released average, if the run plans it, and keep them in ``answers``.

    Args:
        state: the run.
        grid: the grid of any of the three engines.
        number: the round.
        trained: institutions that the round asked to train. Only those that are still connected are asked.
        answers: the replies of the round.
    """
    job, federation = state.job, state.job.run.federation
    if not _is_planned(job.run, number):
        return
    connected = set(grid.get_node_ids())
    asked = {node: item for node, item in trained.items() if node in connected}
    if not asked:
        return
    ask = make_ask(job, number, to_send(state.trained.average, federation))
    messages = list(messages_of(ask, "evaluate", asked, federation.deadline_seconds))
    record_asks(job, "validation_started", "validation", number, asked.values())
    deadline = job.clock.now() + federation.deadline_seconds
    for reply in collect(grid, messages, deadline, job.clock, recording_repeats(job, "validation", asked)):
        institution = asked[reply.metadata.src_node_id]
        try:
            update = check_answer(reply, ask, "validation", institution, job.run)
            answers.take_counts(institution.name, update.payload)
        except (GateError, MessageError):
            continue  # an institution need not share counts, and nothing is lost


def _is_planned(run: RunConfig, number: int) -> bool:
    every = run.evaluation.validation_every
    return every is not None and run.privacy.unit != "none" and number % every == 0
