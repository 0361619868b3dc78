"""What a person sees while a run goes on: a live table on a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from confide.common.run_config import RunConfig
from confide.server.job import Event

Spent = Callable[[Event], dict[str, float]]


@dataclass
class _View:
    """The state of the display."""

    run: RunConfig
    spent: Spent
    began: float = field(default_factory=time.monotonic)
    round: int = 0
    answered: int = 0
    asked: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)
    mean: float | None = None
    epsilon: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    def update(self, event: Event) -> None:
        """Take in an event."""
        kind = event["event"]
        if kind == "round_started":
            self.round, self.asked, self.answered = event["round"], len(event["institutions"]), 0
        elif kind == "accepted":
            self.answered += 1
        elif kind == "dropped":
            self.dropped[event["institution"]] = self.dropped.get(event["institution"], 0) + 1
        elif kind == "round" and "accuracy" in event:
            self.mean, self.accuracy = event["accuracy"]["mean"], event["accuracy"]["per_institution"]
            self.epsilon = self.spent(event)

    def seconds_left(self) -> float | None:
        """At the speed so far."""
        done = self.round - 1 + (self.answered / self.asked if self.asked else 0)
        if done <= 0:
            return None
        return (time.monotonic() - self.began) * (self.run.federation.num_rounds - done) / done

    def line(self) -> str:
        """One plain line about the last round."""
        parts = [f"round {self.round}/{self.run.federation.num_rounds}", f"{self.answered}/{self.asked} institutions"]
        if self.mean is not None:
            parts.append(f"accuracy {self.mean:.1%}")
        if self.epsilon:
            parts.append(f"epsilon {up(max(self.epsilon.values()))} of {self.run.privacy.target_epsilon:g}")
        left = self.seconds_left()
        if left is not None:
            parts.append(f"about {_duration(left)} left")
        return ", ".join(parts)

    def render(self) -> RenderableType:
        """The live table."""
        names = sorted(set(self.accuracy) | set(self.epsilon))
        table = Table("institution", "accuracy (public test)", "epsilon spent / target", "dropped", box=None)
        for name in names[:12]:
            accuracy = f"{self.accuracy[name]:.1%}" if name in self.accuracy else ""
            spent = f"{up(self.epsilon[name])} / {self.run.privacy.target_epsilon:g}" if name in self.epsilon else ""
            table.add_row(Text(name), accuracy, spent, str(self.dropped.get(name, 0)))
        if len(names) > 12:
            table.add_row(f"and {len(names) - 12} more", "", "", "")
        total = self.run.federation.num_rounds
        done = max(0.0, self.round - 1 + (self.answered / self.asked if self.asked else 0))
        return Group(Text(self.line()), ProgressBar(total=total, completed=done, width=60), table)


@contextmanager
def show(run: RunConfig, spent: Spent, console: Console, *, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """Show a run's events while the block lasts.

    Args:
        run: for totals and targets.
        spent: epsilon by institution after the round of an event (it takes a second, so it is asked for seldom).
        console: where to; a terminal gets a live table, anything else a plain line for each evaluated round.
        quiet: show nothing.

    Yields:
        A function that takes events.
    """
    view = _View(run, spent)
    if quiet:
        yield lambda event: None
    elif console.is_terminal:
        with Live(view.render(), console=console, refresh_per_second=4) as live:

            def take(event: Event) -> None:
                view.update(event)
                live.update(view.render())

            yield take
    else:

        def tell(event: Event) -> None:
            view.update(event)
            if event["event"] == "dropped":
                line = f"round {event['round']}: {event['institution']} dropped: {event['reason']}"
                console.print(line, markup=False, highlight=False)
            if event["event"] == "round" and "accuracy" in event:
                console.print(view.line(), markup=False, highlight=False)

        yield tell


def up(epsilon: float) -> str:
    """An epsilon with two decimals, rounded up.

    >>> up(2.9901)
    '3.00'
    """
    return f"{math.ceil(epsilon * 100 - 1e-9) / 100:.2f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
