"""Without privacy each kind learns as much in a run as the Hugging Face Trainer teaches the same module."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from support.kinds import RECORDS, SETTINGS, of_kind

from confide.common.config.run import RunConfig, lock
from confide.common.model.adapter import get_state, reset, set_state
from confide.common.model.base_models import hash_model
from confide.common.model.evaluation import of_windows
from confide.common.model.warm_model import warm_model
from confide.common.tensors import State
from confide.simulations.benchmarks.rivals.central import train_centrally
from confide.simulations.engines.federation import Federation, simulate, start
from confide.simulations.engines.grid import SkippingClock
from confide.simulations.sites.simulated_sites import simulated_sites

ROUNDS = 12
KINDS = [kind for kind in SETTINGS if "," not in kind]  # of each one form
# So that a part is left to learn: a loss that has fallen as far as it can tells of no rate.
RATES = dict.fromkeys(KINDS, 0.01) | {
    **{"token-classification": 0.003, "relation-classification": 0.001, "question-answering": 0.002},
    **{"ranking": 0.003, "causal-lm": 0.05},
}


def _records(kind: str, numbers: range) -> list[dict[str, Any]]:
    """Both records of a kind in turn, about a thing of a made-up name, as long as the word that it replaces."""
    return [json.loads(json.dumps(RECORDS[kind][number % 2]).replace("film", f"{number:04d}")) for number in numbers]


def _by_a_run(run: RunConfig, records: list[dict[str, Any]], local: Path) -> State:
    """The adapter of one institution that draws all of its records in every round."""
    sites = simulated_sites(run, lambda _: {"one": records}, local)
    federation = Federation(run, sites, {}, lambda event: None, lambda *_: None)
    state = start(federation, SkippingClock())
    simulate(federation, state)
    assert state.trained.round == ROUNDS
    return state.trained.adapter


def _loss(run: RunConfig, state: State | None, records: list[dict[str, Any]]) -> float:
    """The mean loss of an adapter; without one, of the start."""
    model = warm_model(run, run.speed)
    reset(model.module, run.study.seed)
    set_state(model.module, state or get_state(model.module))
    windows = [model.task.examples(record, model.tokenizer) for record in records]
    found = of_windows(model, windows, lambda module, batch: list(model.task.losses(module, batch).tolist()))
    return mean(loss for losses in found for loss in losses)


@pytest.mark.waits
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_learns_what_the_trainer_teaches(make_run: Callable[..., RunConfig], kind: str, tmp_path: Path) -> None:
    """Both bound a step's whole gradient at a norm of 1. Our AdamW forgets a little faster than the Trainer's."""
    federation = {"num_rounds": ROUNDS, "learning_rate": RATES[kind], "average_decay": 0.0}
    local = {"sampling_probability": 1.0, "nominal_units": 64}
    run = of_kind(make_run(federation=federation, local=local, privacy={"unit": "none"}), kind)
    run = lock(run, hash_model(Path(run.model.base)))
    private, held_out = _records(kind, range(64)), _records(kind, range(64, 96))
    before = _loss(run, None, held_out)
    ours = _loss(run, _by_a_run(run, private, tmp_path), held_out)
    trainers = _loss(run, train_centrally(run, private), held_out)
    assert trainers < 0.97 * before
    assert ours == pytest.approx(trainers, rel=0.05)
    assert before - ours > 0.95 * (before - trainers)
