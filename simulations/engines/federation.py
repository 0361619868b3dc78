"""One simulated federation, from settings to result, on either engine."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from flwr.app import Context, RecordDict

from confide.client.answers.app import make_client_app
from confide.client.site.installation import Site
from confide.client.training.shares import ClientProcess
from confide.common.config.run import RunConfig
from confide.common.data.records import Record
from confide.common.errors import ConfideError
from confide.common.export.start import initial_state
from confide.common.model.evaluation import evaluate
from confide.common.model.scores import Scores
from confide.common.model.warm_model import warm_model
from confide.common.tensors import State
from confide.common.training.optimizer import GlobalState
from confide.server.rounds.collect import Clock
from confide.server.rounds.loop import make_server_app
from confide.server.rounds.resume import Resumed
from confide.server.rounds.run_context import Event, Job, RunState
from confide.server.rounds.statements import MemoryStatements, Statements
from confide.simulations.engines.grid import FIRST_NODE, Faults, InProcessGrid, SkippingClock, no_faults

Save = Callable[[int, GlobalState, list[dict[str, str]], str], None]


class Sites(Protocol):
    """The institutions of a federation on this machine."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the institutions, in the order of the nodes."""

    @property
    def refused(self) -> dict[str, ConfideError]:
        """The last refusal of each institution."""

    def __call__(self, context: Context) -> Site:
        """Return the site of a node."""


@dataclass(frozen=True)
class Federation:
    """Everything a simulated federation needs.

    Attributes:
        run: the locked run.
        sites: the institutions; simulated, or real ones.
        public: test share by institution, at the server; if empty, nothing is evaluated.
        emit: gets every event.
        save: keeps a round; gets its number, state, accepted updates, lineage.
        lineage: of the run.
        resumed: the progress before an interruption.
        statements: keeps the members of each secure sum.
    """

    run: RunConfig
    sites: Sites
    public: dict[str, list[Record]]
    emit: Callable[[Event], None]
    save: Save
    lineage: str = field(default_factory=lambda: secrets.token_hex(16))
    resumed: Resumed = field(default_factory=Resumed)
    statements: Statements = field(default_factory=MemoryStatements)


def start(federation: Federation, clock: Clock) -> RunState:
    """Return the state of a federation before its first round: the model is loaded and the start values are set."""
    run = federation.run
    initial = initial_state(run, warm_model(run, run.speed))

    def score(state: State) -> Scores:
        # Fetched anew: a baseline may have loaded another model meanwhile, and two would double the memory.
        return evaluate(warm_model(run, run.speed), state, federation.public)

    def save(number: int, state: GlobalState, accepted: list[dict[str, str]]) -> None:
        federation.save(number, state, accepted, federation.lineage)

    scored, names = score if federation.public else None, federation.sites.names
    job = Job(run, federation.lineage, initial, scored, federation.emit, save, clock, len(names))
    of_nodes = dict(enumerate(names, FIRST_NODE))
    return RunState(replace(job, names=of_nodes, resumed=federation.resumed, statements=federation.statements))


def simulate(federation: Federation, state: RunState, faults: Faults = no_faults) -> None:
    """Run a federation on the in-process engine; `state` keeps the progress, also after an interruption."""
    clock = state.job.clock
    if not isinstance(clock, SkippingClock):
        raise TypeError(f"the in-process engine needs a SkippingClock, not {type(clock).__name__}")
    sites = federation.sites
    grid = InProcessGrid(make_client_app(sites, ClientProcess(now=clock.now)), len(sites.names), clock, faults)
    make_server_app(state)(grid, Context(1, 0, {}, RecordDict(), {}))
