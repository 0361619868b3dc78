"""The thread that carries out runs one at a time."""

import logging
import shlex
import threading
from collections.abc import Callable
from dataclasses import replace

import uvicorn
from sqlalchemy.exc import DBAPIError

from confide.common.errors import ConfideError, PolicyError
from confide.server.daemon.rehearsal import rehearse
from confide.server.daemon.run import carry_out
from confide.server.daemon.server_state import ServerState, disk_reason
from confide.server.fleet.public_port import ServerEndsError
from confide.server.fleet.superlink import FlowerState
from confide.server.home.queue import QueuedRun

log = logging.getLogger("confide")


_CARRY_OUT = {"run": carry_out, "rehearsal": rehearse}
_LOOK_SECONDS = 1.0  # between looks at the registry while no run is going on
_RETRY_SECONDS = 5.0  # after an error outside a run, such as a disk that refuses even a run's status


def work(shared: ServerState, make_link: Callable[[], FlowerState], fleet: uvicorn.Server) -> None:
    """Carry out runs until the server ends, the interrupted one first."""
    pause = threading.Event()
    while shared.going and not fleet.started:
        pause.wait(0.05)
    while shared.going:
        try:
            shared.link = shared.link or make_link()
            _look(shared, shared.link)
        except Exception as error:  # noqa: BLE001 - this thread must live on; a run left "running" is resumed
            if not shared.going:
                return
            shared.complain("worker", error)
            pause.wait(_RETRY_SECONDS)


def _look(shared: ServerState, link: FlowerState) -> None:
    """Carry out the next run if there is one, then wait for another."""
    shared.nodes()
    shared.queue.changed.clear()
    if queued := shared.queue.next():
        _carry_out(shared, link, queued)
    shared.troubles.pop("worker", None)
    while shared.going and not shared.queue.changed.wait(_LOOK_SECONDS):
        shared.nodes()


def _carry_out(shared: ServerState, link: FlowerState, queued: QueuedRun) -> None:
    queued = shared.queue.change(replace(queued, status="running"), ["queued", "running"])
    if queued.status != "running":
        return  # an operator has stopped it first
    shared.troubles.pop("worker", None)  # the trouble that blocked this run is over
    log.info("run %s begins, or goes on", queued.name)
    ended = _outcome(shared, link, queued)
    if shared.going:  # otherwise the next start continues it, if only to send out the adapter
        ended = shared.queue.change(ended, ["running"])
        log.info("run %s: %s %s", ended.name, ended.status, ended.reason)
    shared.stopping = None


def _outcome(shared: ServerState, link: FlowerState, queued: QueuedRun) -> QueuedRun:
    """Carry out a run, and return it with the status that its end gives it."""
    try:
        ended = _CARRY_OUT[queued.kind](shared, link, queued)
        if ended.status == "stopped" and shared.stopping != queued.name:
            return replace(queued, status="queued")  # an operator resumed it before it stopped
        return ended
    except PolicyError as error:
        status, reason = "refused", str(error)
    except ConfideError as error:
        status, reason = "stopped", str(error)
    except (OSError, DBAPIError) as error:
        status = "stopped"
        reason = f"{shared.home.folder}: {disk_reason(error)}; mend it, then `{_resume(shared, queued)}`"
    except ServerEndsError:
        status, reason = "running", ""
    except Exception:
        log.exception("run %s failed", queued.name)
        status, reason = "failed", "an error of the server; its log says which"
    return replace(queued, status=status, reason=reason)


def _resume(shared: ServerState, queued: QueuedRun) -> str:
    """Return the resume command in a form that works from any folder."""
    return f"confide server resume {queued.name} --home {shlex.quote(str(shared.home.folder.absolute()))}"
