"""Each unit alone and among others, for the checks of the guarantee, in any kind of task and by any method."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from support.coins import TestCoins
from support.sites import batched, flatten, random_state, train_sum
from support.toy import make_plan

from confide.client.data import units
from confide.client.training import validation
from confide.client.training.batches import BatchedUnits, batch_units
from confide.common.data.batches import Example, collate, length
from confide.common.data.shapes import public_shapes
from confide.common.model.adapter import coordinate_weights, schema, set_state
from confide.common.model.warm_model import WarmModel
from confide.common.privacy import step
from confide.common.privacy.clipping import STABILITY
from confide.common.privacy.plan import PrivacyPlan
from confide.common.protocol.gate import RECEIVED_NORM_BOUND, load_state
from confide.common.tensors import State, dump_state

TOLERANCE = 1e-5  # float32, at clip norm 1
Loss = Callable[[WarmModel, Example], torch.Tensor]


def own_loss(model: WarmModel, example: Example) -> torch.Tensor:
    """The loss of any kind, of one example alone and without padding."""
    batch = collate([example], length(example), model.pads, model.device)
    return model.task.losses(model.module, batch).sum()


def _reference(plan: PrivacyPlan, model: WarmModel, unit: list[Example], loss_of: Loss) -> NDArray[np.float64]:
    """A unit's clipped gradient by its definition: plain autograd, one example at a time, without padding."""
    model.wrapped.disable_hooks()
    parameters = [parameter for parameter in model.module.parameters() if parameter.requires_grad]
    gradients = []
    for example in unit:
        loss = loss_of(model, example)
        gradients.append(torch.cat([g.ravel() for g in torch.autograd.grad(loss, parameters)]).double())
    weights = coordinate_weights(schema(model.module), plan.head_weight).double()
    mean = torch.stack(gradients).mean(dim=0) * weights
    factor = plan.clip_norm / (mean.norm() + STABILITY)
    if plan.clipping == "abadi":
        factor = min(1.0, plan.clip_norm / mean.norm())
    return (mean * factor / weights).numpy()


def counts_as_clipped_means(model: WarmModel, table: units.UnitTable, loss_of: Loss = own_loss) -> None:
    """Compare a step's sum with that of the definition, over micro-batches of several sizes."""
    plan = make_plan(sampling_probability=1.0, head_weight=0.5, clip_norm=0.5)
    expected = sum(_reference(plan, model, unit, loss_of) for unit in table.units)
    for tokens in (1, 70, 200, 10_000):
        site = batch_units(table, model, public_shapes(model.task.max_length, tokens, 10_000))
        actual = train_sum(plan, model, site, TestCoins(0, quiet=True))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=TOLERANCE)


def hostile_states(model: WarmModel) -> list[State]:
    """Weights that a server would choose: usual ones, the largest that pass the gate, and a head that saturates."""
    usual = random_state(model)
    norm = np.linalg.norm(flatten(usual))
    largest = {name: value * np.float32(0.999 * RECEIVED_NORM_BOUND / norm) for name, value in usual.items()}
    # Softmax rounds to 1 for some texts.
    times = min(300.0, 0.9 * RECEIVED_NORM_BOUND / norm)
    saturated = {name: np.float32(times) * value if name == "head.weight" else value for name, value in usual.items()}
    return [load_state(dump_state(s), schema(model.module), RECEIVED_NORM_BOUND) for s in (usual, largest, saturated)]


def clipped_rows(model: WarmModel, site: BatchedUnits, drawn: list[int]) -> dict[int, NDArray[np.float32]]:
    """The clipped gradient of each drawn unit under the weights that the module has, as the private step takes it."""
    model.wrapped.enable_hooks()
    micro_batches = list(site.micro_batches(drawn))
    plan, weights = make_plan(head_weight=0.5), coordinate_weights(schema(model.module), 0.5)
    parts = step.clipped_gradients(plan, micro_batches, model.wrapped, model.losses, weights)
    order = dict.fromkeys(unit for _, unit_B in micro_batches for unit in unit_B)
    return dict(zip(order, torch.cat(list(parts)).numpy(), strict=True))


def same_bits_in_any_company(model: WarmModel, table: units.UnitTable) -> None:
    """Compare each unit's clipped gradient alone and among the others, under weights that a server would choose."""
    site = batched(model, table, tokens=150)
    everyone = list(range(site.num_units))
    for state in hostile_states(model):
        set_state(model.module, state)
        alone = {unit: clipped_rows(model, site, [unit])[unit] for unit in everyone}
        assert sum(row.any() for row in alone.values()) > len(everyone) / 3, "there is something to compare"
        for size in everyone[1:]:
            company = everyone[-size - 1 :] if size % 2 else everyone[: size + 1]
            for unit, row in clipped_rows(model, site, company).items():
                np.testing.assert_array_equal(row, alone[unit])


def sums_add_up(model: WarmModel, table: units.UnitTable) -> None:
    """Compare the step's sum with and without each unit."""
    plan = make_plan(sampling_probability=1.0)

    def step_sum(chosen: list[list[Example]]) -> NDArray[np.float64]:
        shapes = public_shapes(model.task.max_length, 150, 10_000)
        site = batch_units(units.UnitTable(chosen), model, shapes)
        return train_sum(plan, model, site, TestCoins(0, quiet=True))

    everyone = step_sum(table.units)
    for number, unit in enumerate(table.units):
        others = table.units[:number] + table.units[number + 1 :]
        np.testing.assert_allclose(everyone - step_sum(others), step_sum([unit]), atol=TOLERANCE)


def weighs_1_in_the_counts(model: WarmModel, several: validation.Units) -> None:
    """Compare the counts of several units with and without each."""
    everyone = validation.count_cells(model, several)
    for number in range(len(several)):
        change = everyone - validation.count_cells(model, several[:number] + several[number + 1 :])
        assert (change > -TOLERANCE).all(), "a cell that counts others"
        assert np.linalg.norm(change) <= 1 + TOLERANCE, "a unit that weighs more than 1"
        assert abs(change.sum() - 1) <= TOLERANCE, "cells that are not disjoint"
