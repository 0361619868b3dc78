import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import guarantees
from support.coins import TestCoins
from support.toy import Toy, ToyUnits, make_plan, toy_step
from torch import Tensor, nn

from confide.common.model.warm_model import WarmModel
from confide.common.privacy import step
from confide.common.privacy.gradients import wrap
from confide.common.privacy.plan import PrivacyPlan

GRADIENT = st.lists(
    st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from([float("nan"), float("inf")]), min_size=4, max_size=4
)
UNIT = st.lists(GRADIENT, max_size=4)


def test_an_empty_draw_still_adds_noise_and_takes_a_step() -> None:
    guarantees.check_an_empty_draw_still_adds_noise_and_takes_a_step()


def test_a_site_without_units_takes_a_step_too() -> None:
    assert toy_step(make_plan(), TestCoins(0), ToyUnits([])).any()


def test_the_sum_is_divided_by_a_public_constant() -> None:
    guarantees.check_the_normaliser_is_public()


def test_a_unit_counts_as_its_clipped_mean_gradient(model: WarmModel) -> None:
    guarantees.check_a_unit_counts_as_its_clipped_mean_gradient(model)


@settings(max_examples=40)
@given(others=st.lists(UNIT, max_size=4), unit=UNIT, clipping=st.sampled_from(["automatic", "abadi"]))
def test_adding_a_unit_moves_the_sum_by_the_clip_norm_at_the_most(others: list, unit: list, clipping: str) -> None:
    plan = make_plan(sampling_probability=1.0, clip_norm=0.5, clipping=clipping)
    with_unit, without = (toy_step(plan, TestCoins(0, quiet=True), ToyUnits(u)) for u in ([*others, unit], others))
    assert np.linalg.norm(with_unit - without) <= 0.5 * (1 + 1e-5)


def test_the_result_for_units_that_were_not_drawn_does_not_depend_on_them() -> None:
    plan = make_plan()
    steps = [toy_step(plan, TestCoins(0, drawn=False), ToyUnits([[[x] * 4]] * 3)) for x in (0.0, 1.0, float("nan"))]
    np.testing.assert_array_equal(steps[0], steps[1])
    np.testing.assert_array_equal(steps[0], steps[2])


def test_the_mean_of_a_unit_is_clipped_not_its_examples() -> None:
    plan = make_plan(sampling_probability=1.0, clipping="abadi")
    site = ToyUnits([[[2.0, 0.0, 0.0, 0.0], [-2.0, 0.0, 0.0, 0.0], [0.0, 1.5, 0.0, 0.0]]], rows=2)
    assert toy_step(plan, TestCoins(0, quiet=True), site) == pytest.approx([0, 0.5, 0, 0])


def test_a_public_weight_multiplies_before_the_clip_and_divides_after_the_noise() -> None:
    plan = make_plan(sampling_probability=1.0, clipping="abadi", declared_units=1)
    module, weights = wrap(Toy(4)), torch.tensor([1.0, 1.0, 0.1, 0.1])
    site = ToyUnits([[[0.6, 0.0, 8.0, 0.0]]])
    signal = step.private_step(plan, TestCoins(0, quiet=True), [step.Worker(site, module, module)], weights)
    assert signal == pytest.approx([0.6, 0, 8.0, 0], rel=3e-5)
    noise = step.private_step(plan, TestCoins(0), [step.Worker(ToyUnits([]), module, module)], torch.ones(4))
    weighted = step.private_step(plan, TestCoins(0), [step.Worker(ToyUnits([]), module, module)], weights)
    assert weighted == pytest.approx(noise * np.array([1, 1, 10, 10]))


def test_the_result_is_float32_of_the_size_of_the_adapter() -> None:
    module = wrap(Toy(6))
    result = step.private_step(make_plan(), TestCoins(0), [step.Worker(ToyUnits([]), module, module)], torch.ones(6))
    assert (result.shape, result.dtype) == ((6,), np.float32)


@pytest.mark.parametrize("examples", [1, 2])
def test_no_matrix_of_a_micro_batch_is_there_while_the_next_one_is_computed(examples: int) -> None:
    """Else a step would take more than its fullest micro-batch, which is what is tried before a run."""
    size = 4 * 1009  # of no other tensor
    module, alive = wrap(nn.Linear(4, 1009, bias=False)), list[int]()

    def losses(batch: Tensor) -> Tensor:
        rows = [found for found in gc.get_objects() if type(found) is Tensor and found.shape[-1:] == (size,)]
        # Not those of one row: the weights, the sum of the unit that is still open, and (float64) the sum of the step.
        alive.append(sum(found.untyped_storage().nbytes() > 8 * size for found in rows))
        return module(batch).sum(dim=1)

    units = ToyUnits([[[1.0, 2.0, 3.0, 4.0]] * examples] * 12, rows=6)
    step.private_step(
        make_plan(sampling_probability=1.0), TestCoins(0), [step.Worker(units, module, losses)], torch.ones(size)
    )
    assert alive == [0] * (2 * examples)


# Several devices, here several threads

MANY = [[[float(unit % 7), 1.0, -float(unit), 0.5], [0.0, float(unit), 1.0, 2.0]][: 1 + unit % 2] for unit in range(31)]


def _on(sites: list[ToyUnits], coins: TestCoins, plan: PrivacyPlan) -> NDArray[np.float32]:
    workers = [step.Worker(site, module, module) for site in sites for module in [wrap(Toy(4))]]
    for worker in workers[1:]:
        worker.module.load_state_dict(workers[0].module.state_dict())
    return step.private_step(plan, coins, workers, torch.ones(4))


@pytest.mark.parametrize("devices", [2, 3, 40])
def test_several_devices_give_the_sum_of_one_with_one_noise(devices: int) -> None:
    plan = make_plan(sampling_probability=0.7, unit="group")
    alone = _on([ToyUnits(MANY)], TestCoins(3), plan)
    together = _on([ToyUnits(MANY) for _ in range(devices)], TestCoins(3), plan)
    np.testing.assert_allclose(together, alone, rtol=1e-6, atol=1e-7)


def test_each_drawn_unit_is_computed_whole_by_one_device_and_once() -> None:
    sites = [ToyUnits(MANY) for _ in range(3)]
    _on(sites, TestCoins(0), make_plan(sampling_probability=1.0, unit="group"))
    parts = [unit for site in sites for [drawn] in [site.draws] for unit in drawn]
    assert sorted(parts) == list(range(31))
    assert min(len(site.draws[0]) for site in sites) > 3


def test_companions_and_places_do_not_decide_which_device_computes_a_unit() -> None:
    """Devices may differ in a last bit, which a server can amplify to a whole clip norm."""
    for unit in MANY[:8]:
        chosen = set[int]()
        for others in ([], MANY[8:9], MANY[8:20], MANY[20:]):
            for units in ([unit, *others], [*others, unit]):
                sites = [ToyUnits(units) for _ in range(3)]
                _on(sites, TestCoins(0), make_plan(sampling_probability=1.0, unit="group"))
                [number] = [n for n, site in enumerate(sites) if units.index(unit) in site.draws[0]]
                chosen.add(number)
        assert len(chosen) == 1


def test_an_empty_draw_has_its_noise_on_several_devices_too() -> None:
    empty = _on([ToyUnits(MANY)] * 2, TestCoins(0, drawn=False), make_plan())
    np.testing.assert_array_equal(empty, _on([ToyUnits([])], TestCoins(0), make_plan()))


def test_devices_compute_at_the_same_time() -> None:
    begun = [threading.Event(), threading.Event()]

    def losses(number: int, module: nn.Module) -> Callable[[Tensor], Tensor]:
        def meet(batch: Tensor) -> Tensor:
            begun[number].set()
            assert begun[1 - number].wait(20)
            return module(batch)

        return meet

    modules = [wrap(Toy(4)) for _ in range(2)]
    workers = [step.Worker(ToyUnits(MANY), module, losses(n, module)) for n, module in enumerate(modules)]
    assert step.private_step(make_plan(sampling_probability=1.0), TestCoins(0), workers, torch.ones(4)).any()


def test_an_error_of_one_device_is_the_step_s() -> None:
    def fails(batch: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    modules = [wrap(Toy(4)) for _ in range(2)]
    workers = [step.Worker(ToyUnits(MANY), modules[0], modules[0]), step.Worker(ToyUnits(MANY), modules[1], fails)]
    with pytest.raises(RuntimeError, match="out of memory"):
        step.private_step(make_plan(sampling_probability=1.0), TestCoins(0), workers, torch.ones(4))
