"""One run: everything outside that it may touch, and the state that it has reached."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confide.common.config.run import RunConfig
from confide.common.model.scores import Scores
from confide.common.protocol.transfer import update_bytes
from confide.common.tensors import State
from confide.common.training import optimizer
from confide.common.training.optimizer import GlobalState
from confide.server.rounds.collect import Clock
from confide.server.rounds.resume import Resumed
from confide.server.rounds.roster import Institution, Members, carry_counts_over
from confide.server.rounds.statements import MemoryStatements, Statements

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
        statements: keeps the members of each secure sum.
    """

    run: RunConfig
    lineage: str
    initial: State
    evaluate: Callable[[State], Scores] | None
    emit: Callable[[Event], None]
    save: Callable[[int, GlobalState, list[dict[str, str]]], None]
    clock: Clock
    num_nodes: int
    members: Members | None = None
    members_now: Callable[[], Members | None] = lambda: None
    names: Mapping[int, str] = field(default_factory=dict)
    is_stopped: Callable[[], bool] = lambda: False
    resumed: Resumed = field(default_factory=Resumed)
    statements: Statements = field(default_factory=MemoryStatements)

    @property
    def size(self) -> int:
        """The numbers of the adapter."""
        return sum(value.size for value in self.initial.values())


class RunState:
    """The state that a run has reached; a resumed run begins where the interrupted one stood.

    Attributes:
        job: the run.
        trained: the global adapter, its released average, and the optimizer's moments.
        institutions: participants by node.
        gone: participants of before a crash that do not take part now.
        round: the last round that ended.
        scores: of the released average when it was last evaluated.
        finished: True once all rounds have ended.
        benched: names of institutions that left a secure sum void: no later one asks them, until the run is resumed.
    """

    def __init__(self, job: Job) -> None:
        saved, federation = job.resumed.saved, job.run.federation
        self.job = job
        self.trained = saved.state if saved else optimizer.start(job.initial)
        self.institutions: dict[int, Institution] = {}
        self.gone = job.resumed.everybody(federation)
        self.round = job.resumed.ended(federation)
        self.scores: Scores | None = None
        self.finished = False
        self.benched = set[str]()

    @property
    def bytes_per_client_round(self) -> int:
        """The size of one institution's update as it travels."""
        return update_bytes(self.job.run.federation, self.job.initial)

    def everybody(self) -> list[Institution]:
        """Return the institutions that take part, and those that did before a crash."""
        return [*self.institutions.values(), *self.gone]

    def continue_with(self, institutions: dict[int, Institution]) -> None:
        """Set the participants. They keep their counts from before a crash."""
        self.institutions = institutions
        named = {item.name: item for item in institutions.values()}
        self.gone = carry_counts_over(named, self.job.resumed.institutions)
