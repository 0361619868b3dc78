"""Who is there when a round begins, and for whom it waits."""

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import MakeRun

from confide.server.rounds.offer import connected_quorum
from confide.server.rounds.roster import Institution
from confide.simulations.engines.grid import SkippingClock

NAMES = {1: "mary", 2: "jude", 3: "luke"}


def _drawn() -> dict[int, Institution]:
    return {node: Institution(name, 100) for node, name in NAMES.items()}


class Coming:
    """A clock, and a grid on which nodes are there from some second on, and until another."""

    def __init__(self, times: dict[int, tuple[float, float]]) -> None:
        self.times, self.clock = times, SkippingClock()
        self.began, self.known = self.clock.now(), dict.fromkeys(times, 1.0)

    def activated_at(self) -> dict[int, float]:
        return self.known

    def forget(self, ask_ids: Any) -> None:
        """Nothing was asked."""

    def get_node_ids(self) -> list[int]:
        return [node for node, (comes, goes) in self.times.items() if comes <= self.passed() < goes]

    def passed(self) -> float:
        return self.clock.now() - self.began


ALWAYS, NEVER = (0.0, 1e9), (1e9, 1e9)


@pytest.mark.parametrize(
    ("times", "away", "there", "after"),
    [
        ({1: ALWAYS, 2: ALWAYS, 3: ALWAYS}, (), [1, 2, 3], 0),
        ({1: ALWAYS, 2: ALWAYS, 3: (40, 1e9)}, (), [1, 2, 3], 40),
        ({1: ALWAYS, 2: ALWAYS, 3: NEVER}, (), [1, 2], 60),
        ({1: ALWAYS, 2: ALWAYS, 3: (40, 1e9)}, (3,), [1, 2], 0),
        ({1: ALWAYS, 2: ALWAYS, 3: ALWAYS}, (3,), [1, 2, 3], 0),
        ({1: ALWAYS, 2: (200, 1e9), 3: NEVER}, (), [1, 2], 260),
        ({1: ALWAYS, 2: (200, 1e9), 3: (230, 1e9)}, (2, 3), [1, 2, 3], 230),
        ({1: ALWAYS, 2: NEVER, 3: NEVER}, (), [], 300),
    ],
    ids=[
        "all",
        "one in time",
        "one for whom it waits",
        "who was away",
        "who is back",
        "a quorum",
        "a late one",
        "none",
    ],
)
def test_a_round_waits_a_minute_for_who_was_there_and_as_long_as_it_may_for_a_quorum(
    make_run: MakeRun, times: dict[int, tuple[float, float]], away: Collection[int], there: list[int], after: float
) -> None:
    grid = Coming(times)
    run = make_run(federation={"min_clients": 2, "deadline_seconds": 300.0})
    job: Any = SimpleNamespace(run=run, clock=grid.clock, is_stopped=lambda: False)
    drawn = {node: Institution(name, 100, connected=node not in away) for node, name in NAMES.items()}
    found = connected_quorum(job, grid, drawn)  # type: ignore[arg-type]
    assert list(found) == there
    assert grid.passed() == pytest.approx(after, abs=0.3)
    began = grid.passed()
    assert list(connected_quorum(job, grid, drawn)) == there  # type: ignore[arg-type]
    assert grid.passed() - began == pytest.approx(0 if there else 300, abs=0.3), "who is away is not waited for again"


@pytest.mark.parametrize(("revoked", "there"), [({3}, [1, 2]), ({2, 3}, [])])
def test_who_was_revoked_is_not_waited_for_and_without_a_quorum_nobody_is_asked(
    make_run: MakeRun, revoked: set[int], there: list[int]
) -> None:
    """Who is asked is charged, and nothing is learnt from a round without a quorum."""
    grid = Coming({node: NEVER if node in revoked else ALWAYS for node in NAMES})
    for node in revoked:
        del grid.known[node]
    job: Any = SimpleNamespace(run=make_run(federation={"min_clients": 2}), clock=grid.clock, is_stopped=lambda: False)
    assert list(connected_quorum(job, grid, _drawn())) == there  # type: ignore[arg-type]
    assert grid.passed() == 0


def test_a_round_that_an_operator_stops_waits_no_longer(make_run: MakeRun) -> None:
    grid = Coming(dict.fromkeys(NAMES, NEVER))
    job: Any = SimpleNamespace(run=make_run(), clock=grid.clock, is_stopped=lambda: grid.passed() > 5)
    assert connected_quorum(job, grid, _drawn()) == {}  # type: ignore[arg-type]
    assert grid.passed() == pytest.approx(5, abs=0.3)
