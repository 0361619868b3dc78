"""The display while a run goes on: a live table on a terminal, plain lines elsewhere."""

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

from confide.common.config.run import RunConfig
from confide.common.model.scores import score_text
from confide.server.rounds.run_context import Event

Spent = Callable[[Event], dict[str, float]]


@dataclass
class _Pace:
    """The speed of a run. The first round encodes the texts, so it counts only until there is a second."""

    run: RunConfig
    done: float = 0.0  # rounds
    starts: int = 0  # rounds started in this process; a resumed run begins at any round
    began: float = 0.0  # time at which counting began
    before: int = 0  # rounds before it, which do not count
    units: float = 0.0
    seconds: float = 0.0

    def start(self, number: int) -> None:
        """Note that a round starts."""
        self.done, self.starts = number - 1, self.starts + 1
        if self.starts <= 2:
            self.began, self.before = time.monotonic(), number - 1

    def end(self, event: Event) -> None:
        """Note that a round has ended."""
        self.done = event["round"]
        if self.starts == 2:
            self.units = self.seconds = 0.0
        self.units += event["expected_units"]
        self.seconds += event["seconds"]

    def speed(self) -> str | None:
        """Return the units that training is expected to draw per second of the rounds, without evaluation."""
        if not self.units or not self.seconds:
            return None
        rate = self.units / self.seconds
        unit = "groups" if self.run.privacy.unit == "group" else "records"
        return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s"

    def seconds_left(self) -> float | None:
        """Return the seconds that the remaining rounds will take, evaluation included."""
        left, counted = self.run.federation.num_rounds - self.done, self.done - self.before
        return (time.monotonic() - self.began) * left / counted if left > 0 and counted > 0 else None


@dataclass
class _View:
    """The state of the display."""

    run: RunConfig
    spent: Spent
    memory: Callable[[], str] | None
    pace: _Pace
    round: int = 0
    answered: int = 0
    asked: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    mean: float | None = None
    epsilon: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The task's headline."""
        return self.run.task.headline

    def update(self, event: Event) -> None:
        """Take in an event."""
        kind = event["event"]
        if kind == "round_started" or (kind == "sum_started" and event["round"] != self.round):  # resumed with its sum
            self.round, self.asked, self.answered = event["round"], len(event["institutions"]), 0
            self.pace.start(event["round"])
        elif kind == "accepted":
            self.answered += 1
            self.pace.done += 1 / self.asked
        elif kind == "dropped":
            self.dropped[event["institution"]] = self.dropped.get(event["institution"], 0) + 1
        elif kind == "round":
            self.pace.end(event)
            if self.is_due(event):
                self.epsilon = self.spent(event)
            if "score" in event:
                self.mean, self.scores = event["score"]["mean"], event["score"]["per_institution"]

    def is_due(self, event: Event) -> bool:
        """Return whether to report a round's end: every `evaluation.every` rounds, even without evaluation data."""
        number: int = event["round"]
        return number % self.run.evaluation.every == 0 or number == self.run.federation.num_rounds

    def line(self) -> str:
        """Return one plain line about the last round."""
        parts = [f"round {self.round}/{self.run.federation.num_rounds}", f"{self.answered}/{self.asked} institutions"]
        if self.mean is not None:
            parts.append(f"{self.metric} {score_text(self.metric, self.mean)}")
        if self.epsilon:
            spent, target = beside(max(self.epsilon.values()), self.run.privacy.target_epsilon)
            parts.append(f"epsilon {spent} of {target}{condition(self.run)}")
        if speed := self.pace.speed():
            parts.append(speed)
        if self.memory:
            parts.append(f"peak memory {self.memory()}")
        left = self.pace.seconds_left()
        if left is not None:
            parts.append(f"about {_duration(left)} left")
        return ", ".join(parts)

    def epsilon_column(self) -> str:
        """Return the heading over the epsilon of each institution."""
        return f"epsilon spent / target{condition(self.run)}"

    def render(self) -> RenderableType:
        """Return the live table."""
        names = sorted(set(self.scores) | set(self.epsilon))
        table = Table("institution", f"{self.metric} (public test)", self.epsilon_column(), "dropped", box=None)
        for name in names[:12]:
            score = score_text(self.metric, self.scores[name]) if name in self.scores else ""
            pair = beside(self.epsilon[name], self.run.privacy.target_epsilon) if name in self.epsilon else ()
            table.add_row(Text(name), score, " / ".join(pair), str(self.dropped.get(name, 0)))
        if len(names) > 12:
            table.add_row(f"and {len(names) - 12} more", "", "", "")
        bar = ProgressBar(total=self.run.federation.num_rounds, completed=self.pace.done, width=60)
        return Group(Text(self.line()), bar, table)


@contextmanager
def show(
    run: RunConfig, spent: Spent, console: Console, *, quiet: bool, memory: Callable[[], str] | None = None
) -> Iterator[Callable[[Event], None]]:
    """Show a run's events while the block lasts.

    Args:
        run: gives totals and targets.
        spent: epsilon by institution after the round of an event (it takes a second, so it is called seldom).
        console: the output; a terminal gets a live table, anything else a plain line every `evaluation.every` rounds.
        quiet: show nothing.
        memory: the peak memory so far, in words; None if other processes train.

    Yields:
        A function that takes events.
    """
    view = _View(run, spent, memory, _Pace(run))
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
            if event["event"] == "round" and view.is_due(event):
                console.print(view.line(), markup=False, highlight=False)

        yield tell


def round_up_to_cents(epsilon: float) -> str:
    """Return an epsilon with two decimals, rounded up.

    >>> round_up_to_cents(2.9901)
    '3.00'
    """
    return f"{math.ceil(epsilon * 100 - 1e-9) / 100:.2f}"


def condition(run: RunConfig) -> str:
    """Return on what the first epsilon of shared noise depends; "" where each institution adds its own noise."""
    return f" if at most {run.privacy.max_colluding} members of a sum collude" if run.privacy.grid_bits else ""


def conditions(run: RunConfig, if_broken: float | None) -> str:
    """Return what belongs behind the first epsilon of shared noise: its condition, and the second; "" for None."""
    return "" if if_broken is None else f",{condition(run)}, {round_up_to_cents(if_broken)} if all others do"


def beside(epsilon: float, target: float) -> tuple[str, str]:
    """Return an epsilon and its target, with four decimals if two, rounded up, would exceed a target that is kept.

    >>> beside(2.9901, 3.0), beside(21.5408, 21.541)
    (('3.00', '3'), ('21.5408', '21.5410'))
    """
    if target < float(round_up_to_cents(epsilon)) and epsilon <= target:
        return f"{math.ceil(epsilon * 10_000 - 1e-6) / 10_000:.4f}", f"{target:.4f}"
    return round_up_to_cents(epsilon), f"{target:g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
