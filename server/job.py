"""What a strategy is given: one run, and everything outside that it may touch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from confide.common.accuracy import Accuracy
from confide.common.gate import State
from confide.common.run_config import RunConfig
from confide.common.wire import MessageError
from confide.server.checkpoint import Saved
from confide.server.optimizer import GlobalState
from confide.server.roster import Institution, Members
from confide.server.rounds import Clock

Event = dict[str, Any]


@dataclass(frozen=True)
class Resumed:
    """What an interrupted run had reached.

    Attributes:
        saved: the last whole round; None: none was saved.
        damaged: what was accepted in later rounds whose tensors are lost: nothing else is accepted for them again.
        institutions: everybody who took part in it, by name, with what was asked of each.
    """

    saved: Saved | None = None
    damaged: dict[int, list[dict[str, str]]] = field(default_factory=dict)
    institutions: dict[str, Institution] = field(default_factory=dict)

    def require_known(self, number: int, institution: str, payload_sha256: str) -> None:
        """Of a round whose tensors were lost, take nothing but what was accepted then; `MessageError` for another."""
        known = self.damaged.get(number)
        if known is not None and {"institution": institution, "payload_sha256": payload_sha256} not in known:
            raise MessageError("another update than the one that was accepted before the checkpoint was damaged")


@dataclass(frozen=True)
class Job:
    """One run as the server carries it out; effects are arguments.

    Attributes:
        run: the locked run.
        lineage: 16 random bytes of the run, hex.
        initial: the adapter of round 0.
        evaluate: scores a state on public data, where there are any.
        emit: is told of every event: round started, reply, round ended.
        save: keeps a round, atomically.
        clock: the time.
        num_nodes: nodes to wait for before the run is offered, for a minute at the most once one is there.
        members: approved institutions by node; None in a simulation.
        is_stopped: asked between rounds.
        resumed: what was reached before a crash.
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
    is_stopped: Callable[[], bool] = lambda: False
    resumed: Resumed = Resumed()
