"""One run of a server, from the queue to a finished run directory; again from the last whole round after a crash."""

import logging
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context, RecordDict

from confide.common.messages import Finished
from confide.common.run_config import RunConfig
from confide.server.app import make_server_app
from confide.server.checkpoint import load_last, save_round
from confide.server.facts import Outcome, card_facts, report_facts
from confide.server.job import Job
from confide.server.queue import QueuedRun
from confide.server.resume import Resumed
from confide.server.rounds import SystemClock, collect
from confide.server.run_directory import RunDirectory
from confide.server.strategy import ConfideStrategy
from confide.server.superlink import Link, LinkGrid
from confide.server.workshop import Workshop

if TYPE_CHECKING:
    from confide.server.daemon import Desk

log = logging.getLogger("confide")
_GOODBYE_SECONDS = 60.0  # for everybody to fetch the finished adapter


def carry_out(desk: "Desk", link: Link, queued: QueuedRun) -> QueuedRun:
    """Carry out a run, or what is left of it, and write its results.

    Returns:
        The run with its new status.

    Raises:
        ConfideError: too few institutions take part, or a checkpoint or events.jsonl that cannot be read.
    """
    run = desk.queue.run_of(queued)
    directory = RunDirectory.open(desk.home.runs / queued.name, run)
    try:
        with closing(Workshop(run, desk.home.folder)) as workshop:
            workshop.read_public()
            strategy = ConfideStrategy(_job(desk, queued, run, directory, workshop))
            grid = LinkGrid(link)
            with link.run(grid):
                make_server_app(strategy)(grid, Context(grid.run.run_id, 1, {}, RecordDict(), {}))
                if not strategy.finished:
                    return replace(queued, status="stopped", reason=f"after round {strategy.round}")
                _finish(run, directory, strategy, workshop)
                completed = replace(queued, status="completed", reason="")
                desk.queue.write(completed)  # a server that dies from here on has nothing to resume
                _give_out(grid, strategy, directory.path / "adapter")
            return completed
    finally:
        _account_for(run, directory)


def _job(desk: "Desk", queued: QueuedRun, run: RunConfig, directory: RunDirectory, workshop: Workshop) -> Job:
    rounds = directory.path / "rounds"
    saved, damaged = load_last(rounds, queued.lineage)
    members = desk.members_of(run)

    def save(number: int, state: object, accepted: list[dict[str, str]]) -> None:
        save_round(rounds, number, state, accepted, queued.lineage)  # type: ignore[arg-type]

    return Job(
        run=run,
        lineage=queued.lineage,
        initial=workshop.initial(),
        evaluate=workshop.evaluate if run.evaluation.data else None,
        emit=directory.record,
        save=save,
        clock=SystemClock(),
        num_nodes=len(members),
        members=members,
        is_stopped=lambda: desk.is_over(queued.name),
        resumed=Resumed(saved, damaged, directory.institutions(run), directory.rounds()),
    )


def _finish(run: RunConfig, directory: RunDirectory, strategy: ConfideStrategy, workshop: Workshop) -> None:
    """Adapter, report and account of a run that has reached its end."""
    institutions = strategy.everybody()
    result = Outcome(strategy.state.average, strategy.accuracy, institutions, strategy.bytes_per_client_round)
    facts = report_facts(run, directory, result, simulated=False)
    workshop.export(directory.path / "adapter", result.released, card_facts(facts))
    workshop.report(directory.path / "report.html", facts)
    directory.write_privacy("completed", run, institutions, simulated=False)
    directory.record({"event": "completed"})


def _account_for(run: RunConfig, directory: RunDirectory) -> None:
    """The account of a run that ends before its end, in whatever error: all that it asked, by its own events."""
    if (directory.path / "privacy.json").exists():
        return
    try:
        directory.write_privacy("stopped", run, list(directory.institutions(run).values()), simulated=False)
        ended = [0, *(line["round"] for line in directory.rounds())]
        directory.record({"event": "stopped", "after_round": ended[-1]})
    except OSError as error:  # a full disk; why the run ended says more, and must not be lost
        log.error("%s: %s; its account is written when the run is resumed", directory.path, error.strerror)


def _give_out(grid: LinkGrid, strategy: ConfideStrategy, adapter: Path) -> None:
    """To everybody who took part; an error is the log's alone, for the run is over."""
    try:
        _send(grid, strategy, adapter)
    except Exception:
        log.exception("%s: the finished adapter could not be given out", adapter)


def _send(grid: LinkGrid, strategy: ConfideStrategy, adapter: Path) -> None:
    """The finished adapter and the last receipt. Who is away now asks the operator."""
    files = {path.name: path.read_bytes() for path in sorted(adapter.iterdir()) if path.is_file()}
    job = strategy.job
    messages = [
        grid.create_message(
            Finished(job.run.study.name, job.lineage, job.run.sha256(), institution.receipt, files).content(),
            "query.done",
            node,
            "done",
            ttl=600.0,
        )
        for node, institution in strategy.institutions.items()
    ]
    replies = collect(grid, messages, job.clock.now() + _GOODBYE_SECONDS, job.clock)
    job.emit({"event": "given_out", "to": sum(not reply.has_error() for reply in replies), "of": len(messages)})
