"""Gradient inversion: tokens come back without noise, and do not with it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.tiny_llama import save_tiny_llama

from confide.common.config.run import RunConfig, lock
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import WarmModel, warm_model
from confide.simulations.reconstruction.inversion import invert

MakeRun = Callable[..., RunConfig]


def _model(run: RunConfig) -> WarmModel:
    return warm_model(run, run.speed)


def _locked(make_run: MakeRun, **adapter: object) -> RunConfig:
    return lock(make_run(adapter=adapter, federation={"num_rounds": 4}), "0" * 64).model_copy(
        update={"model": make_run().model}
    )


def test_all_tokens_of_short_texts_come_back_without_noise_and_few_with_it(make_run: MakeRun) -> None:
    run = _locked(make_run, rank=8)
    found = invert(run, _model(run))
    assert found.void is None
    assert found.tokens >= 30
    assert (found.without_noise or 0.0) >= 0.9
    assert found.with_noise is not None
    assert found.with_noise <= 0.2


@pytest.mark.parametrize(
    ("adapter", "why"),
    [({"layers": "top:1"}, "lower layers have mixed"), ({"rank": 2}, "shorter than the rank of 2")],
)
def test_an_attack_that_says_nothing_tells_why(make_run: MakeRun, adapter: dict[str, object], why: str) -> None:
    run = _locked(make_run, **adapter)
    found = invert(run, _model(run))
    assert why in str(found.void)
    assert found.with_noise is None


def test_a_layer_that_looks_back_reads_more_than_one_token(make_run: MakeRun, tmp_path: Path) -> None:
    """In a causal model no later token changes an earlier place, but lower layers have mixed them all the same."""
    folder = save_tiny_llama(tmp_path / "llama")
    adapter = {"layers": "top:1", "rank": 16, "targets": "auto"}
    run = lock(make_run(model={"base": str(folder)}, adapter=adapter, task={"max_length": 32}), hash_model(folder))
    assert "lower layers have mixed" in str(invert(run, _model(run)).void)
