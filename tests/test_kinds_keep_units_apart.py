"""No kind of task lets one unit change another's gradient; bugs are planted in test_planted_bugs_of_training.py."""

from collections.abc import Callable
from typing import get_args

import pytest
from support.kinds import SETTINGS, of_kind
from support.sites import MIXED_UNITS, mixed_table, mixed_units, random_state
from support.speed import CPU
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


def test_every_kind_is_here() -> None:
    known = {tag.tag for kind in get_args(get_args(TaskSettings)[0]) for tag in get_args(kind)[1:]}
    assert {settings["kind"] for settings in SETTINGS.values()} == known
