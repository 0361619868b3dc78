"""No method lets one unit change another's gradient, under weights that a hostile server would choose."""

from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRun
from support.families import save_tiny
from support.methods import SETTINGS, run_with, task_for
from support.sites import MIXED_UNITS, mixed_table
from support.speed import CPU
from support.units_apart import same_bits_in_any_company, sums_add_up

from confide.client.data.units import UnitTable
from confide.common.model.adapter import reset
from confide.common.model.warm_model import WarmModel, warm_model

BASES = {"bert": list(SETTINGS), "llama": [name for name in SETTINGS if name != "bitfit"]}


PAIRS = [
    pytest.param((family, method), marks=[pytest.mark.families] if family != "bert" else [])
    for family, methods in BASES.items()
    for method in methods
]


@pytest.fixture(scope="module", params=PAIRS)
def model(request: pytest.FixtureRequest, make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> WarmModel:
    family, method = request.param
    folder: Path = save_tiny(family, tmp_path_factory.mktemp(family) / family)
    run = run_with(make_run, method, folder, task_for(method, family))
    model = warm_model(run, CPU)
    reset(model.module, run.study.seed)
    return model


@pytest.fixture
def table(model: WarmModel) -> UnitTable:
    """Units of one record or two, of several lengths."""
    return mixed_table(model, 3)


def test_a_unit_under_any_method_is_the_same_in_any_company(model: WarmModel, table: UnitTable) -> None:
    assert table.num_units == MIXED_UNITS
    same_bits_in_any_company(model, table)
    sums_add_up(model, table)


def test_a_rule_that_mixes_rows_is_caught(model: WarmModel, table: UnitTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trained layer gives each row the mean of all rows' gradients."""
    rules = model.wrapped.GRAD_SAMPLERS
    for kind in {type(part) for part in model.module.modules()} & rules.keys():
        monkeypatch.setitem(rules, kind, _mixed(rules[kind]))
    with pytest.raises(AssertionError):
        sums_add_up(model, table)


def _mixed(rule: Any) -> Any:
    def gradients(layer: Any, states: Any, errors: Any) -> Any:
        found = rule(layer, states, errors)
        return {name: value.mean(dim=0, keepdim=True).expand_as(value) for name, value in found.items()}

    return gradients
