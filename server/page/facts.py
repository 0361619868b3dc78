"""Institutions and runs as the pages show them."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.common.model.scores import is_percent, score_text
from confide.common.pages.pictures import Line, bar, curve
from confide.server.daemon.server_state import ServerState
from confide.server.home.queue import ENDED, QueuedRun
from confide.server.page.following import Followed, Follower, Part, lines_of, score_of
from confide.server.page.spending import Spending, spending
from confide.server.rounds.run_context import Event

_MAX_RUNS = 20  # the newest in the list
_MAX_POINTS = 300  # of a curve
_LATER_SECONDS = 1.0


@dataclass(frozen=True)
class Connected:
    """An institution that is approved here.

    Attributes:
        name: in the registry.
        is_online: True while it is connected; ``since`` is when that began, or ended; None if it never was.
        part: in the run that is shown; None if it has none.
        versions: of Confide and Flower, as it showed by accepting.
    """

    name: str
    is_online: bool
    since: str | None
    part: Part | None
    versions: str


@dataclass(frozen=True)
class ShownRun:
    """One run.

    Attributes:
        queued: its place in the queue.
        run: locked.
        followed: from its files.
        spending: both epsilons; None without privacy, and until an accountant has counted them.
    """

    queued: QueuedRun
    run: RunConfig
    followed: Followed
    spending: Spending | None

    @property
    def scores(self) -> list[tuple[int, str, float]]:
        """Round, metric and mean of every round that was scored."""
        found = ((number, score_of(event)) for number, event in sorted(self.followed.rounds.items()))
        return [(number, *score) for number, score in found if score]

    @property
    def last_score(self) -> str | None:
        """The last score in words."""
        return f"{self.scores[-1][1]} {score_text(*self.scores[-1][1:])}" if self.scores else None

    @property
    def newest_rounds(self) -> list[dict[str, Any]]:
        """The last ten rounds, the newest first."""
        rounds = self.followed.rounds
        return [{**rounds[number], "told": score_of(rounds[number])} for number in sorted(rounds, reverse=True)[:10]]

    @property
    def round(self) -> int:
        """The last round that ended."""
        return max(self.followed.rounds, default=0)

    def picture_of_progress(self) -> Markup:
        """Return the rounds so far as a bar."""
        total = self.run.federation.num_rounds
        return bar([("asked", self.round)], total, f"Round {self.round} of {total}")

    def ends_of_scores(self) -> tuple[str, str]:
        """Return the values at the bottom and at the top of the curve of scores."""
        low, high = self._ends()
        return score_text(self.scores[0][1], low), score_text(self.scores[0][1], high)

    def picture_of_scores(self) -> Markup:
        """Return the mean score of each round that was scored."""
        points = [(float(number), value) for number, _, value in self.scores]
        thin = points[:: max(1, len(points) // _MAX_POINTS)]
        thin += points[-1:] if thin[-1] != points[-1] else []
        title = f"{self.last_score} after round {int(points[-1][0])}"
        return curve([Line(thin)], (0.0, float(self.run.federation.num_rounds)), self._ends(), title)

    def picture_of_spending(self) -> Markup:
        """Return epsilon after some rounds, below that of the whole run."""
        told = self.spending
        if told is None or not told.rounds:
            return Markup()
        total = float(self.run.federation.num_rounds)
        points = [
            (0.0, 0.0),
            *((float(number), value) for number, value in zip(told.rounds, told.epsilon, strict=True)),
        ]
        limit = Line([(0.0, told.whole), (total, told.whole)], "limit")
        title = f"Epsilon {told.epsilon[-1]:g} after round {told.rounds[-1]}, {told.whole:g} after all"
        return curve([limit, Line(points)], (0.0, total), (0.0, told.whole), title)

    def _ends(self) -> tuple[float, float]:
        """Return 0 and the largest score, or 1 for a share; a correlation may be below 0."""
        metric, values = self.scores[0][1], [value for _, _, value in self.scores]
        return min(0.0, *values), 1.0 if is_percent(metric) else max(0.0, *values)


class Observer:
    """The facts of a server. Files of runs are read as they grow.

    Args:
        shared: the server.
        later: carries out work beside the pages; an accountant takes seconds for a long run.
    """

    def __init__(self, shared: ServerState, later: Callable[[Callable[[], None]], object] | None = None) -> None:
        self._shared, self._turn = shared, threading.Lock()
        self._followers = dict[str, Follower]()
        self._runs = dict[str, RunConfig]()
        self._spent, self._counting = dict[str, tuple[int, Spending | None]](), set[str]()
        self._later = later or _a_moment_later

    def run(self, name: str) -> ShownRun:
        """Return a run; `InputError` if there is none of that name, or its files cannot be read."""
        queued = self._shared.queue.get(name)
        with self._turn:
            if name not in self._runs:
                self._runs, self._followers = self._newest(self._runs), self._newest(self._followers)
                self._runs[name] = self._run_of(queued)
                self._followers[name] = Follower(self._shared.home.runs / name)
            run, followed = self._runs[name], self._followers[name].facts()
        if queued.kind == "run" and followed.rounds:
            self._count(name, run, dict(followed.rounds))
        return ShownRun(queued, run, followed, self._spent.get(name, (0, None))[1])

    def latest(self, runs: list[QueuedRun]) -> ShownRun | None:
        """Return the run that is going on, else the last one that has begun."""
        begun = [each for each in runs if (self._shared.home.runs / each.name / "events.jsonl").is_file()]
        found = next((each for each in begun if each.status == "running"), begun[-1] if begun else None)
        return None if found is None else self.run(found.name)

    def institutions(self, shown: ShownRun | None) -> list[Connected]:
        """Return every approved institution, by name, with its part in a run."""
        seen = self._shared.link.last_seen() if self._shared.link else {}
        nodes = {name: node for node, name in self._shared.nodes().items()}
        # Once Flower knows them, the names of before hold while the registry cannot be read: the page then shows why.
        names = sorted(nodes if self._shared.admitted else self._shared.home.registry.approved())
        return [self._connected(name, seen.get(nodes.get(name, -1), ("unknown", None, None)), shown) for name in names]

    def runs(self) -> list[QueuedRun]:
        """Return every run, oldest first."""
        return self._shared.queue.all()

    def state(self) -> tuple[object, ...]:
        """Return something that changes whenever the pages would, and costs next to nothing."""
        home, link = self._shared.home, self._shared.link
        names = list(self._followers)
        files = [
            home.folder / "registry.json",
            home.folder / "queue",
            *(home.runs / name / "events.jsonl" for name in names),
        ]
        seen = tuple(sorted(link.last_seen().items())) if link else ()
        counted = tuple((name, last) for name, (last, _) in self._spent.items())
        orders = tuple(self._shared.troubles.values()), self._shared.stopping
        return (*(lines_of(path) for path in files), *orders, seen, counted)

    def _count(self, name: str, run: RunConfig, rounds: dict[int, Event]) -> None:
        """Have both epsilons of a run counted, unless they are, or this is being done."""
        last = max(rounds)

        def work() -> None:
            try:
                self._spent = {**self._newest(self._spent), name: (last, spending(run, rounds))}
            finally:
                self._counting.discard(name)

        if name not in self._counting and self._spent.get(name, (0, None))[0] != last:
            self._counting.add(name)
            self._later(work)

    def _connected(self, name: str, seen: tuple[str, str | None, str | None], shown: ShownRun | None) -> Connected:
        status, came, left = seen
        part = shown.followed.parts.get(name) if shown else None
        known = shown.followed.versions if shown and part and part.answer == "accepted" else {}
        told = f"Confide {known['confide']}, Flower {known['flwr']}" if {"confide", "flwr"} <= known.keys() else ""
        online = status == "online"
        return Connected(name, online, came if online else left, part, told)

    def _run_of(self, queued: QueuedRun) -> RunConfig:
        try:
            return self._shared.queue.run_of(queued)
        except (ValueError, OSError):
            raise InputError(f"run {queued.name!r}: its file in the queue cannot be read") from None

    def _newest(self, known: dict[str, Any]) -> dict[str, Any]:
        return dict(list(known.items())[-3:])


def _a_moment_later(work: Callable[[], None]) -> None:
    """Carry out work in a thread of its own, once the page that asked for it is there."""
    timer = threading.Timer(_LATER_SECONDS, work)
    timer.daemon = True
    timer.start()


def newest(runs: list[QueuedRun]) -> list[QueuedRun]:
    """Return the runs of the list, the newest first: all that wait or run, and the last that ended."""
    ended = [each for each in runs if each.status in ENDED]
    return [*(each for each in runs if each.status not in ENDED), *ended[-_MAX_RUNS:]][::-1]
