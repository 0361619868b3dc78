"""Gradient matching: tokens come back by search without noise, and with noise no more than by chance."""

from collections.abc import Callable

import numpy as np
from support.kinds import of_kind

from confide.common.config.run import RunConfig, lock
from confide.common.model.warm_model import WarmModel, warm_model
from confide.simulations.audit.inversion import invert
from confide.simulations.audit.matching import Limits, match

MakeRun = Callable[..., RunConfig]


def _locked(make_run: MakeRun, kind: str = "text-classification", **adapter: object) -> RunConfig:
    run = of_kind(make_run(adapter=adapter, federation={"num_rounds": 4}), kind)
    return lock(run, "0" * 64).model_copy(update={"model": run.model})


def _model(run: RunConfig) -> WarmModel:
    return warm_model(run, run.speed)


def _chance() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(0))


def test_tokens_come_back_where_span_look_up_says_nothing(make_run: MakeRun) -> None:
    run = _locked(make_run, layers="top:1")
    assert invert(run, _model(run)).void
    found = match(run, _model(run), Limits(1, 60, 30.0), _chance())
    assert found.void is None
    print(found)
    assert (found.without_noise or 0.0) >= 0.5
    assert max(found.with_noise or 0.0, found.chance or 0.0) <= 0.4
