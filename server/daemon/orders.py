"""The operator's orders about runs, whether a command or the page brings them."""

from dataclasses import replace

from confide.common.config.run import MAX_RUN_BYTES, RunConfig
from confide.common.errors import InputError
from confide.server.daemon.server_state import ServerState
from confide.server.home.queue import ENDED, QueuedRun
from confide.server.results.run_directory import RunDirectory

TOO_LARGE = f"a run has at most {MAX_RUN_BYTES} bytes; shorten it"


def propose(shared: ServerState, run: RunConfig, kind: str) -> str:
    """Queue a locked run, or a rehearsal of it. Return its name; `InputError` if it is too large."""
    if len(run.canonical_json().encode()) > MAX_RUN_BYTES:
        raise InputError(TOO_LARGE)
    return shared.queue.add(run, kind).name


def stop_run(shared: ServerState, name: str) -> str:
    """Stop a run after its open round, or remove it from the queue. Return its status."""
    queued = shared.queue.get(name)
    ended = replace(queued, status="completed" if _is_over(shared, queued) else "stopped")
    now = shared.queue.change(ended, ["queued"])
    if now.status == "running":
        shared.stopping = now.name
    return now.status


def resume_run(shared: ServerState, name: str) -> str:
    """Queue an unfinished run again: the server offers it anew and continues it. Return its status.

    A completed run sends its adapter to the participants that lack it.

    Raises:
        InputError: it is completed, and its folder is gone.
    """
    queued = shared.queue.get(name)
    if queued.status == "completed" and not _is_over(shared, queued):
        raise InputError(f"run {queued.name!r} is completed, and nothing of it is left to give out")
    if shared.stopping == queued.name:
        shared.stopping = None  # the operator had asked it to stop after its open round
    return shared.queue.change(replace(queued, status="queued", reason=""), ENDED).status


def _is_over(shared: ServerState, queued: QueuedRun) -> bool:
    return RunDirectory.at(shared.home.runs / queued.name).is_over()
