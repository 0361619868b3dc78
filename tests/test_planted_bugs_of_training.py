"""Every planted bug of training and of validation counts makes a check fail, whatever method trains the base.

The bugs are those of support/step_bugs.py, the checks those of support/guarantees.py. Each bug is planted for one
method in every run, so that each method has one; for all others `make families` plants it.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun
from support.guarantees import check_a_unit_counts_as_its_clipped_mean_gradient, check_companions_do_not_change_a_unit
from support.methods import SETTINGS, run_with, task_for
from support.speed import CPU
from support.step_bugs import COUNTING_BUGS, TRAINING_BUGS

from confide.client.training import local_steps
from confide.common.model.adapter import reset
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.privacy import step

BUGS = {**TRAINING_BUGS, **COUNTING_BUGS}
CHECKS = {check.__name__: check for _, check in BUGS.values()}
METHODS = list(SETTINGS)


def _pairs(things: dict[str, Any]) -> list[Any]:
    """Every thing with every method; only the first with the first, the second with the second ... in every run."""
    return [
        pytest.param(method, thing, marks=[] if place == number % len(METHODS) else pytest.mark.waits)
        for place, method in enumerate(METHODS)
        for number, thing in enumerate(things)
    ]


@pytest.fixture(scope="module")
def model_of(make_run: MakeRun, base_folder: Path) -> Callable[[str], WarmModel]:
    """The tiny BERT with a method, made once."""

    def made(method: str) -> WarmModel:
        run = run_with(make_run, method, base_folder, {**task_for(method, "bert"), "max_length": 64})
        return warm_model(run, CPU)

    return cache(made)


@pytest.fixture
def model(request: pytest.FixtureRequest, model_of: Callable[[str], WarmModel]) -> WarmModel:
    model = model_of(request.param)
    reset(model.module, 0)
    return model


@pytest.mark.parametrize(("model", "bug"), _pairs(BUGS), indirect=["model"])
def test_a_bug_in_training_or_counts_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch, model: WarmModel) -> None:
    plant, check = BUGS[bug]
    plant(monkeypatch)
    monkeypatch.setattr(local_steps, "private_step", step.private_step)
    with pytest.raises(AssertionError):
        check(model)


@pytest.mark.parametrize("model", METHODS, indirect=True)
def test_a_unit_counts_as_its_clipped_mean_by_any_method(model: WarmModel) -> None:
    check_a_unit_counts_as_its_clipped_mean_gradient(model)


def test_companions_do_not_change_a_unit_by_trained_norms(model_of: Callable[[str], WarmModel]) -> None:
    """The last bit that a longer padding changes reaches the clipped gradient here; other methods hide it."""
    check_companions_do_not_change_a_unit(model_of("norms"))


@pytest.mark.waits
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("model", METHODS, indirect=True)
def test_every_check_holds_for_any_method(check: str, model: WarmModel) -> None:
    CHECKS[check](model)
