"""Every planted bug of training and of validation counts makes a check fail, by any method, aid, kind and family.

The bugs are those of support/step_bugs.py, the checks those of support/guarantees.py. Each method and aid, each kind
and each usual family has a bug that is planted in every run; all others are planted by `make families`.

Adversarial training is the one aid with a row. A start on public texts and a held rate change nothing that an
institution computes. A start is the weights of round 1, and the checks go through weights that any server may send
(`hostile_states`). The rate is the server's, which applies it to what is noised already.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun
from support import families, kinds, methods
from support.guarantees import check_a_unit_counts_as_its_clipped_mean_gradient, check_companions_do_not_change_a_unit
from support.speed import CPU
from support.step_bugs import COUNTING_BUGS, TRAINING_BUGS

from confide.client.training import local_steps
from confide.common.config.run import RunConfig
from confide.common.model.adapter import reset
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.privacy import step

BUGS = {**TRAINING_BUGS, **COUNTING_BUGS}
CHECKS = {check.__name__: check for _, check in BUGS.values()}
METHODS = [("method", name) for name in methods.SETTINGS]
AIDS = [("aid", "adversarial")]
KINDS = [("kind", name) for name in kinds.SETTINGS]
FAMILIES = [("family", name) for name in families.SETTINGS]
# A mixture of experts takes one row at a time: no micro-batch has rows that are missing.
HARMLESS = {(("family", "mixtral"), "rows that are missing left out")}

Model = tuple[str, str]


def _pairs(models: list[Model]) -> list[Any]:
    """Every bug in every model; only the first in the first, the second in the second ... in every run."""
    usual = {model for model in models if model not in FAMILIES or model[1] in families.USUAL}
    return [
        pytest.param(model, bug, marks=[] if place == number % len(models) and model in usual else pytest.mark.waits)
        for place, model in enumerate(models)
        for number, bug in enumerate(BUGS)
        if (model, bug) not in HARMLESS
    ]


def _name(value: Any) -> str:
    return value if isinstance(value, str) else " ".join(value)


@pytest.fixture(scope="module")
def model_of(make_run: MakeRun, base_folder: Path) -> Callable[[Model], WarmModel]:
    """A tiny model with a method or an aid, of a kind or of a family, made once."""

    def run_of(sort: str, name: str) -> RunConfig:
        if sort == "kind":
            return kinds.of_kind(make_run(), name)
        if sort == "family":
            return methods.run_with(make_run, "lora", kinds.tiny(name), methods.task_for("lora", name))
        if sort == "aid":
            return make_run(adapter={"layers": "top:1"}, local={"adversarial": 0.2})
        return methods.run_with(make_run, name, base_folder, {**methods.task_for(name, "bert"), "max_length": 64})

    return cache(lambda model: warm_model(run_of(*model), CPU))


@pytest.fixture
def model(request: pytest.FixtureRequest, model_of: Callable[[Model], WarmModel]) -> WarmModel:
    model = model_of(request.param)
    reset(model.module, 0)
    return model


@pytest.mark.parametrize(
    ("model", "bug"), [*_pairs([*METHODS, *AIDS]), *_pairs(KINDS), *_pairs(FAMILIES)], indirect=["model"], ids=_name
)
def test_a_bug_in_training_or_counts_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch, model: WarmModel) -> None:
    plant, check = BUGS[bug]
    plant(monkeypatch)
    monkeypatch.setattr(local_steps, "private_step", step.private_step)
    with pytest.raises(AssertionError):
        check(model)


@pytest.mark.parametrize("model", METHODS, indirect=True, ids=_name)
def test_a_unit_counts_as_its_clipped_mean_by_any_method(model: WarmModel) -> None:
    check_a_unit_counts_as_its_clipped_mean_gradient(model)


def test_companions_do_not_change_a_unit_by_trained_norms(model_of: Callable[[Model], WarmModel]) -> None:
    """The last bit that a longer padding changes reaches the clipped gradient here; other methods hide it."""
    check_companions_do_not_change_a_unit(model_of(("method", "norms")))


@pytest.mark.waits
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("model", [*METHODS, *AIDS, *KINDS, *FAMILIES], indirect=True, ids=_name)
def test_every_check_holds_for_any_model(check: str, model: WarmModel) -> None:
    CHECKS[check](model)
