"""Adversarial training: an example's loss and gradient are its own, and come from one move of its own states."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import MakeRun
from support.sites import make_records, make_table, mixed_table, random_state
from support.speed import CPU
from support.units_apart import same_bits_in_any_company, sums_add_up
from torch import Tensor

from confide.client.data.units import UnitTable
from confide.common.config.simulation import SpeedSection
from confide.common.data.batches import collate, length
from confide.common.errors import InputError
from confide.common.model import adversarial, warm_model
from confide.common.model.adapter import set_state
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.gradients import per_example_gradients

SIZE = 0.2


@pytest.fixture
def model(make_run: MakeRun) -> WarmModel:
    run = make_run(adapter={"layers": "top:1"}, local={"adversarial": SIZE})
    found = warm_model.warm_model(run, CPU)
    set_state(found.module, random_state(found))
    return found


@pytest.fixture
def table(model: WarmModel) -> UnitTable:
    return mixed_table(model, 3)


def _rows(model: WarmModel, count: int) -> dict[str, Tensor]:
    examples = [example for unit in make_table(model, make_records(count)).units for example in unit]
    return collate(examples, max(map(length, examples)), model.pads, model.device)


def _gradients_by_definition(model: WarmModel, row: dict[str, Tensor]) -> Tensor:
    """Gradient of the mean of a text's two losses, by plain autograd, the text alone."""
    model.wrapped.disable_hooks()
    assert model.lower is not None
    parameters = [parameter for parameter in model.module.parameters() if parameter.requires_grad]

    def loss(states: Tensor) -> Tensor:
        assert model.lower is not None
        with model.lower.given(states):
            return model.task.losses(model.module, row).sum()

    states = model.prefix(row).float().requires_grad_()
    [rises] = torch.autograd.grad(loss(states), states)
    moved = states + SIZE * states.norm() * rises / rises.norm()
    both = (loss(states.detach()) + loss(moved.detach())) / 2
    return torch.cat([found.ravel() for found in torch.autograd.grad(both, parameters)])


def _compare(model: WarmModel) -> None:
    batch = _rows(model, 5)
    model.wrapped.enable_hooks()
    found = per_example_gradients(model.wrapped, model.losses, batch)
    for number, gradient in enumerate(found):
        row = {name: value[number : number + 1] for name, value in batch.items()}
        torch.testing.assert_close(gradient, _gradients_by_definition(model, row), rtol=1e-3, atol=1e-5)


def test_a_text_s_gradient_is_that_of_its_two_losses(model: WarmModel) -> None:
    _compare(model)


def test_a_unit_is_the_same_in_any_company(model: WarmModel, table: UnitTable) -> None:
    same_bits_in_any_company(model, table)
    sums_add_up(model, table)


def _move_of_the_batch(states: Tensor) -> Tensor:
    return states.norm()


def _two_rows_for_a_text(losses: Callable[[Tensor], Tensor], states: Tensor, size: float, module: Any) -> Tensor:
    moved = states.float() + adversarial._move(losses, states.float(), size, module)
    return torch.cat([losses(states), losses(moved)])


def test_a_move_that_other_texts_decide_is_caught(
    model: WarmModel, table: UnitTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adversarial, "_norms", _move_of_the_batch)
    with pytest.raises(AssertionError):
        sums_add_up(model, table)
    with pytest.raises(AssertionError):
        _compare(model)


def test_two_gradients_of_one_text_are_caught(model: WarmModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_model, "adversarial_losses", _two_rows_for_a_text)
    with pytest.raises((AssertionError, RuntimeError)):
        _compare(model)


def test_norms_of_long_rows_are_whole() -> None:
    states = torch.randn(2, 1500, 1100, generator=torch.Generator().manual_seed(1))
    norms = states.double().flatten(1).norm(dim=1).float()
    torch.testing.assert_close(adversarial._norms(states).flatten(), norms)


def test_a_row_without_a_gradient_is_not_moved(model: WarmModel) -> None:
    states = torch.ones(2, 3, 4)
    move = adversarial._move(lambda given: 0 * given.sum(dim=(1, 2)), states, SIZE, model.wrapped)
    assert not move.any()


def test_a_run_without_it_keeps_its_hash(make_run: MakeRun) -> None:
    assert "adversarial" not in make_run().canonical_json()
    assert make_run(local={"adversarial": SIZE}).sha256() != make_run().sha256()


@pytest.mark.parametrize(
    ("layers", "speed", "said"),
    [
        ("all", CPU, r"local.adversarial = 0.2 moves what frozen layers put out.*use adapter.layers = 'top:3'"),
        ("top:1", SpeedSection(device="cpu", checkpointing=True), "use checkpointing = false, or local.adversarial"),
    ],
)
def test_what_it_cannot_do_is_refused(layers: str, speed: SpeedSection, said: str, make_run: MakeRun) -> None:
    run = make_run(adapter={"layers": layers}, local={"adversarial": SIZE})
    with pytest.raises(InputError, match=said):
        warm_model.warm_model(run, speed)
