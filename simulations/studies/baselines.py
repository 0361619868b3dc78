"""The comparisons of a report, such as no privacy and each institution alone; all with the same number of steps."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flwr.app import Context, RecordDict

from confide.client.home.personal import trained_on
from confide.client.training.shares import shares_at_home
from confide.common.config.run import RunConfig
from confide.common.config.sections import SECURE_SUM
from confide.common.data.records import Record
from confide.common.export.start import initial_state
from confide.common.model.evaluation import evaluate
from confide.common.model.scores import Scores
from confide.common.model.warm_model import warm_model
from confide.common.privacy.coins import Coins
from confide.common.tensors import State
from confide.server.rounds.resume import Resumed
from confide.simulations.data.institutions import load_alone, load_pooled, load_private
from confide.simulations.engines.federation import Federation, simulate, start
from confide.simulations.engines.grid import SkippingClock
from confide.simulations.sites.simulated_sites import simulated_sites


def run_baselines(federation: Federation, shared: State, local: Path, tell: Callable[[str], None]) -> dict[str, Scores]:
    """Run the baselines on the in-process engine, one after the other, with the same settings.

    Args:
        federation: the one to compare them with; its events and rounds are not touched.
        shared: the adapter that it released.
        local: folder in which their sites keep tracebacks.
        tell: gets the name of each baseline as it starts.

    Returns:
        ``local_only``: each institution alone with its privacy, on its own test share. ``no_privacy``: the same
        federation without privacy. ``central``: all records as one institution, without privacy. A secure sum
        has in place of the last ``local_noise``: the same federation in which every institution adds all of the noise.
        ``start``: the adapter before the first round, where that is no guess: a base that writes without a head, or
        the adapter of `start_from`. ``personalised``, where institutions differ by their partition: the shared adapter,
        trained on by each for itself, on its own test share.
    """
    quiet = replace(federation, emit=lambda event: None, save=lambda *_: None, resumed=Resumed())
    open_run, local_run = without_privacy(federation.run), with_local_noise(federation.run)
    own, found = {}, {}
    if federation.run.adapter.start_from or not (federation.run.task.own_head or federation.run.task.native_head):
        found["start"] = before_training(quiet)
    tell(f"baseline: each of {len(federation.sites.names)} institutions alone, with privacy")
    for name in federation.sites.names:
        own.update(alone(name, quiet, local_run, local).per_institution)
    found["local_only"] = Scores(federation.run.task.headline, own)
    if local_run is not federation.run:
        tell("baseline: the same federation, in which every institution adds all of the noise")
        found["local_noise"] = together(quiet, local_run, local)
    tell("baseline: the same federation without privacy")
    found["no_privacy"] = together(quiet, open_run, local)
    if local_run is federation.run:
        tell("baseline: central, all records pooled, without privacy")
        found["central"] = pooled(quiet, open_run, local)
    if federation.run.simulation and federation.run.simulation.partition != "iid":
        tell("baseline: the shared adapter, trained on at each institution, without privacy")
        found["personalised"] = personalised(quiet, shared)
    return found


def before_training(federation: Federation) -> Scores:
    """Return the scores of the adapter before its first round: of a base that writes, what a prompt alone gives."""
    model = warm_model(federation.run, federation.run.speed)
    return evaluate(model, initial_state(federation.run, model), federation.public)


def personalised(federation: Federation, shared: State) -> Scores:
    """Return the score of each institution's personalised adapter, which never leaves it, on its own test share."""
    run, own = federation.run, dict[str, float]()
    model = warm_model(run, run.speed)
    for number, name in enumerate(federation.sites.names):
        site = federation.sites(Context(1, number, {"partition-id": number}, RecordDict(), {}))
        shares = shares_at_home(site.data, run.speed, model, site.config.dataset.validation_fraction)
        state = trained_on(run, model, shares.training, shared, Coins.fresh(), lambda line: None)
        own.update(evaluate(model, state, _own_share(name, federation)).per_institution)
    return Scores(run.task.headline, own)


def without_privacy(run: RunConfig) -> RunConfig:
    """Return the same run without privacy."""
    run = with_local_noise(run)
    return run.model_copy(update={"privacy": run.privacy.model_copy(update={"unit": "none"})})


def with_local_noise(run: RunConfig) -> RunConfig:
    """Return the same run in which every institution adds all of the noise; itself if it does already."""
    if run.federation.aggregation != SECURE_SUM:
        return run
    none = dict.fromkeys(("max_colluding", "target_epsilon_if_broken", "grid_bits", "share_variance"))
    sections = {
        "study": run.study.model_copy(update={"keys": {}}),
        "federation": run.federation.model_copy(update={"aggregation": "fedavg"}),
        "privacy": run.privacy.model_copy(update=none),
    }
    return run.model_copy(update=sections)


def together(federation: Federation, run: RunConfig, local: Path) -> Scores:
    """Return the scores of a federation's institutions under another run."""
    return _run(federation, run, load_private, local)


def pooled(federation: Federation, run: RunConfig, local: Path) -> Scores:
    """Return the scores of one institution that holds all records."""
    return _run(federation, _without_quorum(run), load_pooled, local)


def alone(name: str, federation: Federation, run: RunConfig, local: Path) -> Scores:
    """Return the scores of one institution by itself, on its own test share or the common one."""
    return _run(
        replace(federation, public=_own_share(name, federation)),
        _without_quorum(run),
        functools.partial(load_alone, name),
        local,
    )


def _own_share(name: str, federation: Federation) -> dict[str, list[Record]]:
    return {name: federation.public.get(name, next(iter(federation.public.values())))}


def _without_quorum(run: RunConfig) -> RunConfig:
    return run.model_copy(update={"federation": run.federation.model_copy(update={"min_clients": 1})})


def _run(
    federation: Federation, run: RunConfig, load: Callable[[RunConfig], dict[str, list[Record]]], local: Path
) -> Scores:
    this = replace(federation, run=run, sites=simulated_sites(run, load, local))
    state = start(this, SkippingClock())
    simulate(this, state)
    if state.scores is None:
        raise ValueError("a baseline needs public test shares")
    return state.scores
