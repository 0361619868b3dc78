"""A limit of time for a part of a benchmark."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class OutOfTime(BaseException):
    """A part has had its time. It is no Exception, so no library takes it for a fault of its own and goes on."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Interrupt what takes longer, and again twice a second: an error in a library's clean-up code would be lost.

    Raises:
        OutOfTime: it took longer, or no time was left.
    """
    if seconds <= 0:
        raise OutOfTime

    over = False

    def stop(*_: object) -> None:
        if not over:
            raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
    try:
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
