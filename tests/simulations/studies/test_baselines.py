"""The shared adapter, trained on at each institution, where labels are skewed."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.installations import start_state
from support.kinds import of_kind
from support.sites import make_records, random_state

from confide.common.config.run import RunConfig
from confide.common.model.adapter import set_state
from confide.common.model.evaluation import evaluate
from confide.common.model.warm_model import warm_model
from confide.simulations.engines.federation import Federation
from confide.simulations.sites.simulated_sites import simulated_sites
from confide.simulations.studies.baselines import before_training, personalised

MakeRun = Callable[..., RunConfig]
LABELS = ("negative", "positive")


def test_the_institution_that_a_shared_adapter_serves_least_gains_by_its_own(locked: MakeRun, tmp_path: Path) -> None:
    """An adapter that answers all alike is right at one of two institutions; each of their own is right at home."""
    run = locked(federation={"num_rounds": 10, "learning_rate": 0.5})
    records = {
        f"site-{label}": [{**record, "label": label} for record in make_records(12)] for label in run.task.labels
    }
    sites = simulated_sites(run, lambda _: records, tmp_path / "local")
    federation = Federation(run, sites, records, lambda event: None, lambda *_: None)
    shared = start_state(run)
    before = evaluate(warm_model(run, run.speed), shared, records).per_institution
    after = personalised(federation, shared)
    assert min(before.values()) < 0.6
    assert after.per_institution == {"site-negative": 1.0, "site-positive": 1.0}
    assert (after.metric, after.mean) == ("accuracy", 1.0)


def test_a_base_that_writes_is_scored_before_it_is_trained(make_run: MakeRun, tmp_path: Path) -> None:
    """What a prompt alone gives: the score of the start values, in which an adapter changes nothing."""
    run = of_kind(make_run(), "causal-lm, text")
    records = {"a": [run.task.made_up(0, number, 9) for number in range(4)]}
    sites = simulated_sites(run, lambda _: records, tmp_path / "local")
    federation = Federation(run, sites, records, lambda event: None, lambda *_: None)
    set_state(warm_model(run, run.speed).module, random_state(warm_model(run, run.speed)))
    scores = before_training(federation)
    assert scores.metric == "perplexity"
    assert scores.mean == pytest.approx(evaluate(warm_model(run, run.speed), start_state(run), records).mean)
