"""Ctrl-C and SIGTERM: a simulation ends at once, and prints how to go on."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer


class Terminated(KeyboardInterrupt):
    """SIGTERM as an exception, as Python has it for Ctrl-C only."""


@contextmanager
def interruptible(how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Exit with one line and code 130 after Ctrl-C, 143 after SIGTERM; for the main thread of a process."""

    def stop(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        typer.echo(f"confide: interrupted; {how_to_go_on()}", err=True)
        number = signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT
        sys.exit(128 + number)
    finally:
        signal.signal(signal.SIGTERM, before)
