"""The arguments of a strategy: one run, and everything outside that it may touch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confide.common.config.run import RunConfig
from confide.common.model.scores import Accuracy
from confide.common.tensors import State
from confide.server.aggregation.optimizer import GlobalState
from confide.server.rounds.collect import Clock
from confide.server.rounds.resume import Resumed
from confide.server.rounds.roster import Members

Event = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One run as the server carries it out. Effects are arguments.

    Attributes:
        run: the locked run.
        lineage: 16 random bytes of the run, hex.
        initial: the adapter of round 0.
        evaluate: scores a state on public data; None without such data.
        emit: receives every event: round started, reply, round ended.
        save: saves a round atomically.
        clock: tells the time.
        num_nodes: nodes to wait for before the offer, for a minute at most once one is there.
        members: approved institutions by node, when the run begins or resumes; None in a simulation.
        members_now: returns the same at the time of the call; None if no institution can join later.
        names: names of the nodes of a simulation.
        is_stopped: asked between rounds, and while the run is offered.
        resumed: the state that was reached before a crash.
    """

    run: RunConfig
    lineage: str
    initial: State
    evaluate: Callable[[State], Accuracy] | None
    emit: Callable[[Event], None]
    save: Callable[[int, GlobalState, list[dict[str, str]]], None]
    clock: Clock
    num_nodes: int
    members: Members | None = None
    members_now: Callable[[], Members | None] = lambda: None
    names: Mapping[int, str] = field(default_factory=dict)
    is_stopped: Callable[[], bool] = lambda: False
    resumed: Resumed = field(default_factory=Resumed)
