from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeRun
from support import guarantees
from support.coins import TestCoins
from support.sites import batched, flatten, make_records, make_table, random_state, train_sum
from support.speed import CPU
from support.toy import make_plan

from confide.client.training import local_steps
from confide.client.training.local_steps import LocalWork, train
from confide.common.model.adapter import schema, set_state
from confide.common.model.warm_model import WarmModel, forget_models, warm_model
from confide.common.privacy.coins import Coins
from confide.common.privacy.plan import NoPrivacy
from confide.common.privacy.step import Worker, private_step
from confide.common.protocol.gate import PLAIN_NORM_BOUND

FREE = {"clip_norm": 1e6, "clipping": "abadi", "noise_multiplier": 1e-9}  # clips nothing, adds nothing, rounds nothing


def test_every_local_step_draws_a_mask_of_its_own(model: WarmModel) -> None:
    guarantees.check_every_local_step_draws_a_mask_of_its_own(model)


def test_every_local_step_draws_noise_of_its_own(model: WarmModel) -> None:
    guarantees.check_every_local_step_draws_noise_of_its_own(model)


def test_a_unit_counts_as_its_clipped_mean_gradient(model: WarmModel) -> None:
    guarantees.check_a_unit_counts_as_its_clipped_mean_gradient(model)


def test_a_unit_adds_the_same_alone_and_among_companions(model: WarmModel) -> None:
    guarantees.check_companions_do_not_change_a_unit(model)


def test_the_update_has_exactly_the_schema_of_the_adapter(model: WarmModel) -> None:
    site = batched(model, make_table(model, make_records(3)))
    update = train(LocalWork(make_plan(), random_state(model), 2, 0.5), model, site, Coins.fresh())
    shapes = schema(model.module)
    assert {name: value.shape for name, value in update.items()} == shapes
    assert list(update) == list(shapes)
    assert {value.dtype for value in update.values()} == {np.dtype(np.float32)}


def test_the_update_is_the_learning_rate_times_the_step_downhill(model: WarmModel) -> None:
    plan, site = make_plan(sampling_probability=1.0), batched(model, make_table(model, make_records(3)))
    updates = [
        flatten(train(LocalWork(plan, random_state(model), 1, rate), model, site, TestCoins(0, quiet=True)))
        for rate in (1.0, 0.25)
    ]
    np.testing.assert_allclose(updates[1], updates[0] / 4, atol=1e-6)
    assert updates[0] @ train_sum(plan, model, site, TestCoins(0, quiet=True)) < 0


def test_training_does_not_depend_on_what_the_model_did_before(model: WarmModel) -> None:
    """The warm model is shared by simulated institutions: nothing of one may reach the next."""
    plan, site = make_plan(), batched(model, make_table(model, make_records(6)))
    first = train_sum(plan, model, site, TestCoins(1), steps=2)
    set_state(model.module, random_state(model, seed=9))
    train_sum(NoPrivacy(1.0, 5, 6), model, site, TestCoins(2))
    np.testing.assert_array_equal(train_sum(plan, model, site, TestCoins(1), steps=2), first)


def test_the_received_state_is_left_alone(model: WarmModel) -> None:
    received, site = random_state(model), batched(model, make_table(model, make_records(3)))
    train(LocalWork(make_plan(), received, 2, 1.0), model, site, Coins.fresh())
    np.testing.assert_array_equal(flatten(received), flatten(random_state(model)))


@pytest.mark.parametrize("value", [1e4, 1e30])
def test_absurd_weights_of_the_server_change_no_bound(model: WarmModel, value: float) -> None:
    """The guarantee holds for any weights: what cannot be computed contributes zero, the noise stays."""
    plan, site = make_plan(sampling_probability=1.0), batched(model, make_table(model, make_records(6)))
    received = {name: np.full_like(array, value) for name, array in random_state(model).items()}
    shapes = schema(model.module)
    set_state(model.module, received)
    work = LocalWork(plan, received, 1, 1.0)
    model.wrapped.enable_hooks()
    size = sum(int(np.prod(shape)) for shape in shapes.values())
    gradient = private_step(
        plan, TestCoins(0, quiet=True), [Worker(site, model.wrapped, model.losses)], torch.ones(size)
    )
    assert np.linalg.norm(gradient.astype(float)) * plan.expected_batch_size <= 6 * plan.clip_norm * 1.00001
    assert np.isfinite(flatten(train(work, model, site, TestCoins(0)))).all()


def test_without_privacy_a_step_is_the_mean_gradient_of_each_drawn_unit(model: WarmModel) -> None:
    table = make_table(model, make_records(7, groups=3))
    expected = np.zeros(0)
    bound = make_plan(sampling_probability=1.0, **FREE)
    for tokens in (40, 1000):
        site = batched(model, table, tokens)
        expected = train_sum(bound, model, site, TestCoins(0, quiet=True))
        actual = train_sum(NoPrivacy(1.0, 10, 40), model, site, TestCoins(0))
        np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_without_privacy_one_text_without_a_gradient_ends_no_training(
    model: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its micro-batch is left out; the optimizer would keep a NaN for ever."""
    site, plan = batched(model, make_table(model, make_records(6)), 16), NoPrivacy(1.0, 6, 40)
    real, seen = WarmModel.losses, list[int]()

    def losses(self: WarmModel, batch: Any) -> torch.Tensor:
        seen.append(len(seen))
        return real(self, batch) * (float("nan") if len(seen) == 1 else 1.0)

    whole = train_sum(plan, model, site, TestCoins(0))
    monkeypatch.setattr(WarmModel, "losses", losses)
    without = train_sum(plan, model, site, TestCoins(0))
    assert len(seen) > 1
    assert np.isfinite(without).all()
    assert 0 < np.linalg.norm(without - whole) < np.linalg.norm(whole)


def test_without_privacy_a_large_gradient_is_scaled_back_to_the_bound(
    model: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its direction stays; a small one is left as it is, as `torch.nn.utils.clip_grad_norm_` leaves it."""
    site, plan = batched(model, make_table(model, make_records(7))), NoPrivacy(1.0, 7, 40)
    free = train_sum(plan, model, site, TestCoins(0))
    size = float(np.linalg.norm(free))
    assert size < PLAIN_NORM_BOUND * plan.expected_batch_size  # not bounded yet: the line before is the whole gradient
    monkeypatch.setattr(local_steps, "PLAIN_NORM_BOUND", size / plan.expected_batch_size / 5)
    np.testing.assert_allclose(train_sum(plan, model, site, TestCoins(0)), free / 5, atol=1e-5)


def test_without_privacy_sampling_is_the_same(model: WarmModel) -> None:
    site, bound = batched(model, make_table(model, make_records(8))), make_plan(**FREE)
    private = train_sum(replace(bound, sampling_probability=0.5), model, site, TestCoins(4, quiet=True))
    np.testing.assert_allclose(train_sum(NoPrivacy(0.5, 10, 40), model, site, TestCoins(4)), private, atol=1e-4)


def test_without_privacy_an_empty_draw_changes_nothing(model: WarmModel) -> None:
    site = batched(model, make_table(model, make_records(3)))
    assert not train_sum(NoPrivacy(0.5, 10, 40), model, site, TestCoins(0, drawn=False)).any()


def test_a_model_without_padding_token_pads_with_0(model: WarmModel) -> None:
    assert model.pad_token_id == 0


def test_no_local_step_begins_on_weights_beyond_the_norm_that_a_server_may_send(
    model: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server chooses the learning rate: after one step the weights could be of any size."""
    norms: list[float] = []

    def looked_at(module: torch.nn.Module, state: dict[str, np.ndarray]) -> None:
        norms.append(float(np.linalg.norm(flatten(state))))
        set_state(module, state)

    monkeypatch.setattr("confide.client.training.local_steps.set_state", looked_at)
    site = batched(model, make_table(model, make_records(3)))
    train(LocalWork(make_plan(), random_state(model), 3, 1e6), model, site, TestCoins(0))
    assert norms[0] < 100
    assert norms[1:] == pytest.approx([1000, 1000], rel=1e-5)


def test_two_devices_train_what_one_trains(model: WarmModel, make_run: MakeRun) -> None:
    """In two steps: the second one begins on weights that every copy must get."""
    plan, site = make_plan(sampling_probability=0.6), batched(model, make_table(model, make_records(20)), 100)
    forget_models()
    copy, rows = warm_model(make_run(), CPU), list[int]()
    counted = Counting(rows, **{part.name: getattr(copy, part.name) for part in fields(copy)})
    work, both = LocalWork(plan, random_state(model), 2, 0.5), replace(model, copies=(counted,))
    alone, together = (flatten(train(work, each, site, TestCoins(1))) for each in (model, both))
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)
    assert rows, "the copy took its part"


class Counting(WarmModel):
    """A model that notes the rows of its micro-batches."""

    def __init__(self, rows: list[int], **parts: Any) -> None:
        super().__init__(**parts)
        object.__setattr__(self, "rows", rows)

    def losses(self, batch: Any) -> torch.Tensor:
        rows: list[int] = self.rows  # type: ignore[attr-defined]
        rows.append(len(batch["input_ids"]))
        return super().losses(batch)
