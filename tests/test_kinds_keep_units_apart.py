"""No kind of task lets one unit change another's gradient; and for every kind a loss that does so is caught."""

from collections.abc import Callable
from typing import Any, get_args

import pytest
from support.kinds import SETTINGS, of_kind, task_of
from support.sites import MIXED_UNITS, mixed_table, mixed_units, random_state
from support.speed import CPU
from support.step_bugs import COUNTING_BUGS, TRAINING_BUGS
from support.units_apart import (
    counts_as_clipped_means,
    same_bits_in_any_company,
    sums_add_up,
    weighs_1_in_the_counts,
)

from confide.client.data.units import UnitTable
from confide.common.config.run import RunConfig
from confide.common.model.adapter import reset, set_state
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.tasks import TaskSettings

BUGS: dict[str, Callable[[Any], float]] = {
    "divided by the batch's tokens": lambda batch: float(batch["attention_mask"].sum()),
    "divided by the batch's size": lambda batch: float(len(batch["input_ids"])),
}

# Planted in one kind in every run (test_planted_bugs_of_training.py), in all others by `make families`.
OF_UNITS = ("unit clipped in each micro-batch", "clip by example", "mean of clipped examples", "clip by layer")
OF_COUNTS = ("a unit that weighs more than 1 in a count", "correct and total", "counts divided by the number of units")


@pytest.fixture(scope="module", params=SETTINGS)  # all tests of a kind run together, on one warm model
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def model(kind: str, make_run: Callable[..., RunConfig]) -> WarmModel:
    run = of_kind(make_run(), kind)
    model = warm_model(run, CPU)
    reset(model.module, run.study.seed)
    return model


@pytest.fixture
def table(model: WarmModel) -> UnitTable:
    """Units of one record or two, of several lengths and windows."""
    return mixed_table(model, 9)


def test_a_unit_of_any_kind_is_the_same_in_any_company(model: WarmModel, table: UnitTable) -> None:
    assert table.num_units == MIXED_UNITS
    same_bits_in_any_company(model, table)
    sums_add_up(model, table)


def test_a_unit_of_any_kind_counts_as_its_clipped_mean(model: WarmModel, table: UnitTable) -> None:
    set_state(model.module, random_state(model))
    assert max(map(len, table.units)) > 1
    counts_as_clipped_means(model, table)


def test_a_unit_of_any_kind_weighs_1_in_the_counts(model: WarmModel) -> None:
    weighs_1_in_the_counts(model, mixed_units(model))


@pytest.mark.parametrize("bug", BUGS)
def test_a_loss_of_any_kind_that_reads_companions_is_caught(
    bug: str, model: WarmModel, table: UnitTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, divisor = type(model.task).losses, BUGS[bug]
    monkeypatch.setattr(
        type(model.task), "losses", lambda task, module, batch: real(task, module, batch) / divisor(batch)
    )
    with pytest.raises(AssertionError):
        sums_add_up(model, table)


@pytest.mark.parametrize("bug", OF_UNITS)
@pytest.mark.waits
def test_a_unit_clipped_in_another_way_is_caught(
    bug: str, model: WarmModel, table: UnitTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_state(model.module, random_state(model))
    TRAINING_BUGS[bug][0](monkeypatch)
    with pytest.raises(AssertionError):
        counts_as_clipped_means(model, table)


@pytest.mark.waits
def test_states_standardised_by_the_batch_are_caught(
    kind: str, model: WarmModel, table: UnitTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not task_of(kind).own_head:
        return  # nothing of ours reads the states
    set_state(model.module, random_state(model))
    TRAINING_BUGS["states standardised by the batch"][0](monkeypatch)
    with pytest.raises(AssertionError):
        sums_add_up(model, table)


@pytest.mark.parametrize("bug", OF_COUNTS)
@pytest.mark.waits
def test_a_count_that_weighs_units_otherwise_is_caught(
    bug: str, model: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A model of random weights may get nothing right, and no bug shows in a cell of zeros.
    monkeypatch.setattr(type(model.task), "rightness", lambda task, truth, prediction: 0.5)
    COUNTING_BUGS[bug][0](monkeypatch)
    with pytest.raises(AssertionError):
        weighs_1_in_the_counts(model, mixed_units(model))


def test_every_kind_is_here() -> None:
    known = {tag.tag for kind in get_args(get_args(TaskSettings)[0]) for tag in get_args(kind)[1:]}
    assert {settings["kind"] for settings in SETTINGS.values()} == known
