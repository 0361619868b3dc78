"""In every kind of task, bugs that would count a unit in another way are caught; `make families` plants them."""

from collections.abc import Callable

import pytest
from support.kinds import SETTINGS, of_kind, task_of
from support.sites import mixed_table, mixed_units, random_state
from support.speed import CPU
from support.step_bugs import COUNTING_BUGS, TRAINING_BUGS
from support.units_apart import counts_as_clipped_means, sums_add_up, weighs_1_in_the_counts

from confide.common.config.run import RunConfig
from confide.common.model.adapter import set_state
from confide.common.model.warm_model import WarmModel, warm_model

pytestmark = pytest.mark.waits  # test_planted_bugs.py plants all of them in one kind, in every run
_OF_UNITS = ("unit clipped in each micro-batch", "clip by example", "mean of clipped examples", "clip by layer")
_OF_COUNTS = ("a unit that weighs more than 1 in a count", "correct and total", "counts divided by the number of units")


@pytest.fixture(scope="module", params=SETTINGS)  # all tests of a kind run together, on one warm model
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def model(kind: str, make_run: Callable[..., RunConfig]) -> WarmModel:
    model = warm_model(of_kind(make_run(), kind), CPU)
    set_state(model.module, random_state(model))
    return model


@pytest.mark.parametrize("bug", _OF_UNITS)
def test_a_unit_clipped_in_another_way_is_caught(bug: str, model: WarmModel, monkeypatch: pytest.MonkeyPatch) -> None:
    table = mixed_table(model, 9)
    TRAINING_BUGS[bug][0](monkeypatch)
    with pytest.raises(AssertionError):
        counts_as_clipped_means(model, table)


def test_states_standardised_by_the_batch_are_caught(
    kind: str, model: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not task_of(kind).own_head:
        return  # nothing of ours reads the states
    table = mixed_table(model, 9)
    TRAINING_BUGS["states standardised by the batch"][0](monkeypatch)
    with pytest.raises(AssertionError):
        sums_add_up(model, table)


@pytest.mark.parametrize("bug", _OF_COUNTS)
def test_a_count_that_weighs_units_otherwise_is_caught(
    bug: str, model: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A model of random weights may get nothing right, and no bug shows in a cell of zeros.
    monkeypatch.setattr(type(model.task), "rightness", lambda task, truth, prediction: 0.5)
    COUNTING_BUGS[bug][0](monkeypatch)
    with pytest.raises(AssertionError):
        weighs_1_in_the_counts(model, mixed_units(model))
