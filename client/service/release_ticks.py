"""Ticks after an ask at which its answer leaves, so that its time does not tell how long it took to make."""

import math
import threading
import time
from collections.abc import Callable

from flwr.app import Context, Message, RecordDict

from confide.client.service.link import Answer
from confide.common.config.run import RunConfig
from confide.common.protocol.wire import MessageError, record


def at_ticks(
    answer: Answer, stop: threading.Event, least: Callable[[], float], now: Callable[[], float] = time.monotonic
) -> Answer:
    """Return a function that gives the same answers, each held until a tick.

    Guarantee: every answer (an update, sealed bytes that are sent again, `declined`) leaves a whole number of ticks
    after its ask came, and at least one. A tick lasts the run's ``release_seconds``, and never less than ``least``. No
    run that a server names, and no malformed ask, makes it shorter. Only the number of ticks depends on the work.

    Args:
        answer: makes a reply, which is sealed on the disk before it waits here.
        stop: ends a wait at once.
        least: returns the seconds of the institution's own shortest tick; called when an answer is ready.
        now: returns the seconds of a monotonic clock.
    """

    def answer_at_a_tick(message: Message, context: Context) -> Message:
        received = now()
        reply = answer(message, context)
        tick = tick_of(message.content if message.has_content() else RecordDict(), least())
        stop.wait(seconds_to_tick(now() - received, tick))
        return reply

    return answer_at_a_tick


def tick_of(content: RecordDict, least: float) -> float:
    """Return the seconds of a tick of the run that an ask is about; ``least`` if that is more, or if there is no run.

    A run with shorter ticks than the institution's is refused, and its refusal leaves at a tick of the institution.
    """
    try:
        run_json = record(content, "ask").get("run_json")
        of_the_run = RunConfig.model_validate_json(run_json).federation.release_seconds  # type: ignore[arg-type]
    except (MessageError, ValueError):  # pydantic's error is a ValueError, even for a value that is no JSON
        return least
    return max(of_the_run, least)


def seconds_to_tick(elapsed: float, tick: float) -> float:
    """Return the seconds to wait, ``elapsed`` seconds after the ask came.

    >>> [seconds_to_tick(elapsed, 10.0) for elapsed in (0.0, 9.5, 10.0, 10.5)]
    [10.0, 0.5, 0.0, 9.5]
    """
    return max(0.0, max(1, math.ceil(elapsed / tick)) * tick - elapsed)
