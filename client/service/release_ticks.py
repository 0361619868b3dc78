"""When an answer leaves: at a tick after its ask, so that its time does not tell how long it took to make."""

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
    """The same answers, each held until a tick.

    Guarantee: whatever an answer is (an update, sealed bytes that are sent again, `declined`), it leaves a whole number
    of ticks after its ask came, and at least one. A tick lasts the run's ``release_seconds``, and never less than
    ``least``: no run that a server names, and no ask that is none, makes it shorter. The number alone depends on the
    work.

    Args:
        answer: makes a reply; what it makes is sealed, on the disk, before it waits here.
        stop: ends a wait at once.
        least: seconds of the institution's own shortest tick, asked for when an answer is there.
        now: seconds, of a clock that nobody sets.
    """

    def answer_at_a_tick(message: Message, context: Context) -> Message:
        received = now()
        reply = answer(message, context)
        tick = tick_of(message.content if message.has_content() else RecordDict(), least())
        stop.wait(seconds_to_tick(now() - received, tick))
        return reply

    return answer_at_a_tick


def tick_of(content: RecordDict, least: float) -> float:
    """Seconds between the ticks of the run that an ask is about; ``least`` where those are more, and where it is none.

    A run with shorter ticks than the institution's is refused, and its refusal leaves at one of the institution's.
    """
    try:
        run_json = record(content, "ask").get("run_json")
        of_the_run = RunConfig.model_validate_json(run_json).federation.release_seconds  # type: ignore[arg-type]
    except (MessageError, ValueError):  # pydantic's error is a ValueError, whatever comes instead of JSON
        return least
    return max(of_the_run, least)


def seconds_to_tick(elapsed: float, tick: float) -> float:
    """How long to wait, ``elapsed`` seconds after the ask came.

    >>> [seconds_to_tick(elapsed, 10.0) for elapsed in (0.0, 9.5, 10.0, 10.5)]
    [10.0, 0.5, 0.0, 9.5]
    """
    return max(0.0, max(1, math.ceil(elapsed / tick)) * tick - elapsed)
