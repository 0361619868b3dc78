"""The time and the memory that a plan measures: of records of all lengths that the task allows, of every kind."""

from collections.abc import Callable

import pytest
from support.kinds import SETTINGS, of_kind

from confide.client.data.units import UnitTable
from confide.client.training import local_steps
from confide.common.config.run import RunConfig
from confide.common.data.batches import length
from confide.simulations.studies.plan import measure

MakeRun = Callable[..., RunConfig]
# These in every run, the others in `make families`: a text, and a record of two windows.
_USUAL = {"text-classification", "causal-lm, text"}
SMALL = {"tokens_per_micro_batch": 64}  # few shapes to try


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunConfig], list[UnitTable]]:
    """``measured(run)``: the units of each of two steps that `measure` takes, whose facts are positive."""

    def call(run: RunConfig) -> list[UnitTable]:
        tables = list[UnitTable]()
        train = local_steps.train
        monkeypatch.setattr(local_steps, "train", lambda *given: tables.append(given[2].table) or train(*given))
        facts = measure(run, num_steps=2)
        assert facts.pop("peak_gpu_memory_mb") == 0, "on a CPU"
        assert facts.keys() == {"seconds_per_round", "peak_memory_mb"}
        assert all(figure > 0 for figure in facts.values())
        return tables

    return call


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in _USUAL else pytest.mark.waits) for kind in SETTINGS]
)
def test_records_of_all_lengths_that_the_task_allows_are_measured(
    measured: Callable[[RunConfig], list[UnitTable]], make_run: MakeRun, kind: str
) -> None:
    run = of_kind(make_run(local={"nominal_units": 32}, speed=SMALL), kind)
    [table, _] = measured(run)
    assert table.num_units == 32
    examples = getattr(run.task, "max_candidates", getattr(run.task, "max_windows", 1))
    each = examples * run.task.max_length // 16
    tokens = [sum(map(length, unit)) for unit in table.units]
    assert tokens == 2 * [number * each for number in range(1, 17)]
    assert max(length(example) for unit in table.units for example in unit) == run.task.max_length


def test_a_run_of_few_units_has_records_as_long_as_the_task_allows(
    measured: Callable[[RunConfig], list[UnitTable]], make_run: MakeRun
) -> None:
    [table, _] = measured(make_run(local={"nominal_units": 3}, speed=SMALL))
    assert [length(example) for [example] in table.units] == [22, 43, 64]
