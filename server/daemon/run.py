"""One run, from the queue to a finished run directory. After a crash it continues from the last whole round."""

import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from flwr.app import Context, RecordDict

from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError
from confide.common.training.optimizer import GlobalState
from confide.server.daemon.audited import require_audit
from confide.server.daemon.delivery import FinishedRun, give_out, given_out, not_delivered_to
from confide.server.daemon.server_state import ServerState
from confide.server.daemon.torch_child import Workshop
from confide.server.fleet.public_port import ServerEndsError
from confide.server.fleet.superlink import FlowerState, LinkGrid
from confide.server.home.queue import QueuedRun
from confide.server.results.report import write_report
from confide.server.results.report_facts import card_facts, epsilon_of, report_facts
from confide.server.results.run_directory import RunDirectory
from confide.server.results.tracking import track
from confide.server.rounds.checkpoint import load_last, save_round
from confide.server.rounds.collect import CONNECT_SECONDS, SystemClock, wait_for_nodes
from confide.server.rounds.loop import make_server_app
from confide.server.rounds.resume import Resumed
from confide.server.rounds.roster import Institution
from confide.server.rounds.run_context import Event, Job, RunState
from confide.server.rounds.statements import FileStatements

log = logging.getLogger("confide")


def carry_out(shared: ServerState, link: FlowerState, queued: QueuedRun) -> QueuedRun:
    """Carry out a run, or the rest of it, and write its results. Send the adapter of a finished run again.

    Returns:
        The run with its new status.

    Raises:
        ConfideError: too few institutions take part, or a checkpoint or events.jsonl cannot be read.
    """
    run, path = shared.queue.run_of(queued), shared.home.runs / queued.name
    if RunDirectory.at(path).is_over():
        try:
            _give_out_again(shared, link, queued, run)
        except ServerEndsError:
            raise
        except Exception:
            log.exception("run %s is completed; its adapter could not be given out", queued.name)
        return replace(queued, status="completed", reason="")
    directory = RunDirectory.open(path, run)
    try:
        with (
            closing(Workshop(run, shared.home.folder)) as workshop,
            track(run, path, shared.home.config.server.tracking, partial(epsilon_of, run)) as curves,
        ):
            workshop.read_public()
            if run.release.audit:
                require_audit(directory, lambda: shared.is_over(queued.name))
            state = RunState(_job(shared, queued, run, directory, workshop, curves))
            grid = LinkGrid(link)
            with link.run(grid):
                make_server_app(state)(grid, Context(grid.run.run_id, 1, {}, RecordDict(), {}))
                if not state.finished:
                    return replace(queued, status="stopped", reason=f"after round {state.round}")
                _finish(shared, directory, state, workshop)
                names = [institution.name for institution in state.everybody()]
                _hand_over(shared, grid, directory, FinishedRun(run, queued.lineage), state.institutions, names)
            return replace(queued, status="completed", reason="")
    finally:
        _account_for(run, directory)


def _job(
    shared: ServerState,
    queued: QueuedRun,
    run: RunConfig,
    directory: RunDirectory,
    workshop: Workshop,
    curves: Callable[[Event], None],
) -> Job:
    rounds = directory.path / "rounds"
    saved, damaged = load_last(rounds, queued.lineage)
    members = shared.members_of(run)

    def save(number: int, state: GlobalState, accepted: list[dict[str, str]]) -> None:
        save_round(rounds, number, state, accepted, queued.lineage)

    def emit(event: Event) -> None:
        directory.record(event)
        curves(event)
        if event["event"] == "dropped":
            log.warning("round %d: %s is dropped: %s", event["round"], event["institution"], event["reason"])

    return Job(
        run=run,
        lineage=queued.lineage,
        initial=workshop.initial(),
        evaluate=workshop.evaluate if run.evaluation.data else None,
        emit=emit,
        save=save,
        clock=SystemClock(),
        num_nodes=len(members),
        members=members,
        members_now=lambda: shared.members_of(run),
        is_stopped=lambda: shared.is_over(queued.name),
        resumed=Resumed(saved, damaged, directory.institutions(run), directory.rounds()),
        statements=FileStatements(rounds / "statements"),
    )


def _finish(shared: ServerState, directory: RunDirectory, state: RunState, workshop: Workshop) -> None:
    """Write the adapter, the report and the account of a run that has reached its end.

    Raises:
        ServerEndsError: the server ends, and so does the child that looks at the adapter; its next start ends the run.
    """
    run, institutions = state.job.run, state.everybody()
    facts = report_facts(directory, state, simulated=False)
    workshop.export(directory.path / "adapter", state.trained.average, card_facts(facts))
    seen = _seen(workshop, state)
    if not shared.going:
        raise ServerEndsError("the server ends")
    write_report(directory.path / "report.html", {**facts, **seen})
    directory.write_privacy("completed", run, institutions, simulated=False)
    directory.record({"event": "completed"})


def _seen(workshop: Workshop, state: RunState) -> dict[str, Any]:
    """Return what of samples, closer look and earlier task the adapter can answer; a line in the log tells the rest."""
    facts = dict[str, Any]()
    try:
        facts["samples"] = workshop.samples(state.trained.average)
        facts["look"] = workshop.look(state.trained.average)
    except ConfideError as error:
        log.warning("the report has no samples: %s", error)
    try:
        facts["earlier"] = workshop.earlier(state.trained.average)
    except ConfideError as error:  # its file may be gone by now
        log.warning("the report has no scores on the earlier task: %s", error)
    return facts


def _account_for(run: RunConfig, directory: RunDirectory) -> None:
    """Write the account of a run that ends early, whatever the error: it counts all asks in the run's events."""
    if (directory.path / "privacy.json").exists():
        return
    try:
        directory.write_privacy("stopped", run, list(directory.institutions(run).values()), simulated=False)
        ended = [0, *(line["round"] for line in directory.rounds())]
        directory.record({"event": "stopped", "after_round": ended[-1]})
    except OSError as error:  # a full disk; the error that ended the run says more and must not be lost
        log.error("%s: %s; its account is written when the run is resumed", directory.path, error.strerror)


def _give_out_again(shared: ServerState, link: FlowerState, queued: QueuedRun, run: RunConfig) -> None:
    """Send the adapter to participants that are still approved and lack it."""
    directory = RunDirectory.at(shared.home.runs / queued.name)
    names = not_delivered_to(directory.events(), directory.institutions(run))
    members = {node: one.institution for node, one in shared.members_of(run).items() if one.institution in names}
    if not members:
        return
    grid, clock = LinkGrid(link), SystemClock()
    with link.run(grid):
        until = clock.now() + CONNECT_SECONDS
        there = wait_for_nodes(grid, len(members), until, clock, members, lambda: shared.is_over(queued.name))
        to = {node: Institution(members[node], 0) for node in there}
        _hand_over(shared, grid, directory, FinishedRun(run, queued.lineage), to, names)


def _hand_over(
    shared: ServerState,
    grid: LinkGrid,
    directory: RunDirectory,
    finished: FinishedRun,
    to: Mapping[int, Institution],
    names: Collection[str],
) -> None:
    """Send the adapter and record the institutions that kept it. A full disk does not undo the run."""
    kept = give_out(grid, SystemClock(), finished, to, directory.path / "adapter")
    if not shared.going:
        return  # the server is stopping, which cut this short; its next start begins it again
    try:
        directory.record(given_out(names, kept))
    except OSError as error:
        log.error("%s: %s; who has the adapter is not written down", directory.path, error.strerror)
