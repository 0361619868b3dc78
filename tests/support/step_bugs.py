"""Known mistakes of the step, of training and of validation counts, each with the check that must fail at it."""

import os
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from support import guarantees, sites

from confide.client.data import units
from confide.client.training import batches, validation
from confide.common.data.shapes import public_shapes
from confide.common.generation import language_model
from confide.common.privacy import noise, plan, step, unit_means
from confide.common.privacy.clipping import clip
from confide.common.tasks import TaskSettings
from confide.common.tasks.heads import NativeHead, TokenHead

KINDS = [get_args(kind)[0] for kind in get_args(get_args(TaskSettings)[0])]
Plant = Callable[[pytest.MonkeyPatch], None]
PlantedBug = tuple[Plant, Callable[..., None]]


# Noise


def _scaled_noise(factor: float) -> Plant:
    real = noise.standard_normals
    return lambda patch: patch.setattr(noise, "standard_normals", lambda coins, n: factor * real(coins, n))


def _reused_noise(patch: pytest.MonkeyPatch) -> None:
    real, kept = noise.standard_normals, {}
    patch.setattr(noise, "standard_normals", lambda coins, n: kept.setdefault(n, real(coins, n)))


def _seeded_noise(patch: pytest.MonkeyPatch) -> None:
    def seeded(coins: Any, count: int) -> Any:
        return np.random.Generator(np.random.PCG64(7)).standard_normal(count)

    patch.setattr(noise, "standard_normals", seeded)


def _shared_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "getpid", lambda: 1)


# Sampling


def _one_mask(patch: pytest.MonkeyPatch) -> None:
    real, kept = step.draw_units, {}
    patch.setattr(step, "draw_units", lambda plan, coins, n: kept.setdefault(n, real(plan, coins, n)))


def _epochs(batch_size: Callable[[Any, int, float], int]) -> Plant:
    """Walk through shuffled epochs, in batches of a size."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        queue: list[int] = []
        random = np.random.Generator(np.random.PCG64(0))

        def draw(plan: Any, coins: Any, num_units: int) -> list[int]:
            drawn = []
            for _ in range(batch_size(random, num_units, plan.sampling_probability)):
                if not queue:
                    queue.extend(random.permutation(num_units).tolist())
                drawn.append(queue.pop())
            return sorted(set(drawn))

        patch.setattr(step, "draw_units", draw)

    return plant


def _rate_of_the_data(patch: pytest.MonkeyPatch) -> None:
    """Sample so that the batch has its expected size whatever the data are, as Opacus' loader does."""

    def draw(plan: Any, coins: Any, num_units: int) -> list[int]:
        taken = coins.mask_uniforms(num_units) <= plan.expected_batch_size / num_units
        return list(taken.nonzero()[0])

    patch.setattr(step, "draw_units", draw)


def _skipped_empty_batch(patch: pytest.MonkeyPatch) -> None:
    real = step.add_noise

    def skip(sum_P: Any, plan: Any, coins: Any) -> Any:
        return real(sum_P, plan, coins) if sum_P.any() else sum_P.astype(np.float32)

    patch.setattr(step, "add_noise", skip)


# Normalisation


def _divided_by(divisor: Callable[[Any, list[int]], float]) -> Plant:
    """Divide by something other than the expected batch size."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real_draw, real_step, drawn = step.draw_units, step.private_step, []

        def draw(*arguments: Any) -> list[int]:
            drawn[:] = real_draw(*arguments)
            return list(drawn)

        def private_step(plan: Any, coins: Any, workers: Any, *rest: Any) -> Any:
            result = real_step(plan, coins, workers, *rest)
            return (result * plan.expected_batch_size / max(1.0, divisor(workers[0].units, drawn))).astype(np.float32)

        patch.setattr(step, "draw_units", draw)
        patch.setattr(step, "private_step", private_step)

    return plant


def _losses_times(factor: Callable[[Any], Any]) -> Plant:
    """Multiply the losses of every kind."""

    def times(real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda task, module, batch: real(task, module, batch) * factor(batch)

    def plant(patch: pytest.MonkeyPatch) -> None:
        for kind in KINDS:
            patch.setattr(kind, "losses", times(kind.losses))

    return plant


# Units and clipping


def _clipped_in_each_micro_batch(patch: pytest.MonkeyPatch) -> None:
    real = unit_means.unit_means
    patch.setattr(step, "unit_means", lambda parts: (mean for part in parts for mean in real([part])))


def _added_in_float32(patch: pytest.MonkeyPatch) -> None:
    """As it was: in an order that follows from where micro-batches end."""

    def average(gradients_BP: Any, counts: list[int], sum_P: Any, added: int) -> Any:
        owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        sums = torch.zeros(len(counts), gradients_BP.shape[1]).index_add_(0, owners, gradients_BP)
        numbers = torch.tensor(counts)
        if added:
            sums[0], numbers[0] = sums[0] + sum_P, numbers[0] + added
        gradients_BP[: len(counts) - 1] = sums[:-1] / numbers[:-1].unsqueeze(1)
        return sums[-1].clone(), int(numbers[-1])

    patch.setattr(unit_means, "_average", average)


def _standardised_by_the_batch(patch: pytest.MonkeyPatch) -> None:
    """Take the mean that is subtracted from states over the micro-batch, not over public texts."""

    real, losses, logits = TokenHead.states, language_model.answer_losses, NativeHead.forward

    def states(self: TokenHead, *batch: torch.Tensor) -> torch.Tensor:
        found = real(self, *batch)
        return found - found.mean(dim=(0, 1))

    def answer_losses(found: torch.Tensor, *rest: Any) -> Any:
        return losses(found - found.mean(dim=(0, 1)), *rest)

    def native(self: NativeHead, *batch: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        found = logits(self, *batch, **more)
        return found - found.mean(dim=0)

    patch.setattr(TokenHead, "states", states)
    patch.setattr(language_model, "answer_losses", answer_losses)
    patch.setattr(NativeHead, "forward", native)


def _rows_left_out(patch: pytest.MonkeyPatch) -> None:
    """A micro-batch of as many rows as there are examples."""
    real = batches.BatchedUnits.batch
    patch.setattr(
        batches.BatchedUnits, "batch", lambda units, places, shape: real(units, places, (len(places), shape[1]))
    )


def _shapes_untried(patch: pytest.MonkeyPatch) -> None:
    """And a kernel that few rows select, which gives the last bits in another way."""
    _losses_times(lambda batch: 1 + 1e-6 * (len(batch["input_ids"]) < 4))(patch)
    patch.setattr(sites, "tried_shapes", lambda model, tokens: public_shapes(model.task.max_length, tokens, 10_000))


def _clipped_by_example(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(step, "unit_means", lambda parts: (gradients_BP for gradients_BP, _ in parts))


def _mean_of_clipped_examples(patch: pytest.MonkeyPatch) -> None:
    real = unit_means.unit_means

    def means(parts: Any) -> Any:
        bounded = guarantees.make_plan(clip_norm=0.5)
        return real((clip(gradients_BP, bounded), unit_B) for gradients_BP, unit_B in parts)

    patch.setattr(step, "unit_means", means)


def _clipped_by_layer(patch: pytest.MonkeyPatch) -> None:
    def by_layer(gradients_UP: Any, plan: plan.PrivacyPlan) -> Any:
        half = gradients_UP.shape[1] // 2
        return torch.cat([clip(gradients_UP[:, :half], plan), clip(gradients_UP[:, half:], plan)], dim=1)

    patch.setattr(step, "clip", by_layer)


def _zero_by_product(patch: pytest.MonkeyPatch) -> None:
    def clip_without_where(gradients_UP: Any, plan: plan.PrivacyPlan) -> Any:
        norms = gradients_UP.norm(dim=1, keepdim=True)
        return gradients_UP * (norms.isfinite() * plan.clip_norm / (norms + 0.01))

    patch.setattr(step, "clip", clip_without_where)


# Records


def _encoding_may_raise(patch: pytest.MonkeyPatch) -> None:
    real = units.make_units

    def strict(records: Any, task: Any, tokenizer: Any, *rest: Any) -> Any:
        for record in records:
            task.examples(record, tokenizer)
        return real(records, task, tokenizer, *rest)

    patch.setattr(units, "make_units", strict)


def _split_by_position(patch: pytest.MonkeyPatch) -> None:
    def positional(records: Any, secret: bytes, fraction: float) -> Any:
        cut = int(len(records) * fraction)
        return records[cut:], records[:cut]

    patch.setattr(units, "split_records", positional)


# Validation counts


def _in_clear(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(validation, "noised_cells", lambda cells, plan, coins: cells.astype(np.float32))


def _same_noise_for_every_release(patch: pytest.MonkeyPatch) -> None:
    real, kept = validation.noised_cells, {}

    def noised(cells: Any, plan: Any, coins: Any) -> Any:
        return cells + kept.setdefault("noise", real(np.zeros(len(cells)), plan, coins))

    patch.setattr(validation, "noised_cells", noised)


def _records_counted(patch: pytest.MonkeyPatch) -> None:
    real = validation.count_cells
    patch.setattr(validation, "count_cells", lambda model, units: real(model, [[r] for unit in units for r in unit]))


def _correct_and_total(patch: pytest.MonkeyPatch) -> None:
    """Cells that are not disjoint: a unit that is right counts in both, so the sensitivity is the root of 2."""
    real = validation.count_cells
    for kind in KINDS:  # a model of random weights may get nothing right, and in a cell of zeros no bug shows
        patch.setattr(kind, "rightness", lambda *_: 0.5)

    def count(model: Any, units: Any) -> Any:
        right, wrong = real(model, units)
        return np.array([right, right + wrong])

    patch.setattr(validation, "count_cells", count)


def _share_of_the_true_count(patch: pytest.MonkeyPatch) -> None:
    real = validation.count_cells
    patch.setattr(validation, "count_cells", lambda model, units: real(model, units) / max(1, len(units)))


STEP_BUGS: dict[str, PlantedBug] = {
    "half noise": (_scaled_noise(1 / 2), guarantees.check_noise_has_the_scale_of_the_plan),
    "two thirds of the noise": (_scaled_noise(2 / 3), guarantees.check_noise_has_the_scale_of_the_plan),
    "three halves of the noise": (_scaled_noise(3 / 2), guarantees.check_noise_has_the_scale_of_the_plan),
    "noise from a server-chosen seed": (_seeded_noise, guarantees.check_public_seeds_do_not_choose_the_noise),
    "key shared after a fork": (_shared_key, guarantees.check_coins_refuse_to_cross_a_fork),
    "shuffled batches of fixed size": (
        _epochs(lambda random, n, q: int(n * q)),
        guarantees.check_sampling_is_poisson,
    ),
    "shuffled batches of binomial size": (
        _epochs(lambda random, n, q: int(random.binomial(n, q))),
        guarantees.check_sampling_is_poisson,
    ),
    "sampling rate from the number of units": (_rate_of_the_data, guarantees.check_sampling_is_poisson),
    "skipped empty batch": (
        _skipped_empty_batch,
        guarantees.check_an_empty_draw_still_adds_noise_and_takes_a_step,
    ),
    "division by the actual batch size": (
        _divided_by(lambda units, drawn: len(drawn)),
        guarantees.check_the_normaliser_is_public,
    ),
    "division by the number of units": (
        _divided_by(lambda units, drawn: units.num_units),
        guarantees.check_the_normaliser_is_public,
    ),
    "a unit's examples added in float32": (
        _added_in_float32,
        guarantees.check_the_order_of_a_unit_s_examples_is_its_own,
    ),
    "NaN times zero": (_zero_by_product, guarantees.check_a_unit_that_is_not_finite_contributes_zero),
    "positional split": (_split_by_position, guarantees.check_train_or_validation_is_decided_by_the_unit_s_key),
}

TRAINING_BUGS: dict[str, PlantedBug] = {
    "noise reused between steps": (_reused_noise, guarantees.check_every_local_step_draws_noise_of_its_own),
    "one mask for all local steps": (_one_mask, guarantees.check_every_local_step_draws_a_mask_of_its_own),
    "loss divided by the batch's tokens": (
        _losses_times(lambda batch: 1 / batch["attention_mask"].sum()),
        guarantees.check_a_loss_is_of_its_own_example,
    ),
    "loss divided by the batch's size": (
        _losses_times(lambda batch: 1 / len(batch["input_ids"])),
        guarantees.check_a_loss_is_of_its_own_example,
    ),
    "states standardised by the batch": (_standardised_by_the_batch, guarantees.check_a_loss_is_of_its_own_example),
    "shapes that were not tried": (_shapes_untried, guarantees.check_companions_do_not_change_a_unit),
    "rows that are missing left out": (_rows_left_out, guarantees.check_every_micro_batch_has_a_shape_that_was_tried),
    "unit clipped in each micro-batch": (
        _clipped_in_each_micro_batch,
        guarantees.check_a_unit_counts_as_its_clipped_mean_gradient,
    ),
    "clip by example": (_clipped_by_example, guarantees.check_a_unit_counts_as_its_clipped_mean_gradient),
    "mean of clipped examples": (
        _mean_of_clipped_examples,
        guarantees.check_a_unit_counts_as_its_clipped_mean_gradient,
    ),
    "clip by layer": (_clipped_by_layer, guarantees.check_a_unit_counts_as_its_clipped_mean_gradient),
    "record on which the tokenizer raises": (
        _encoding_may_raise,
        guarantees.check_a_record_on_which_the_tokenizer_raises_counts_as_absent,
    ),
}

COUNTING_BUGS: dict[str, PlantedBug] = {
    "metric sent in clear": (_in_clear, guarantees.check_validation_counts_have_the_noise_of_the_plan),
    "half of the noise on counts": (
        _scaled_noise(1 / 2),
        guarantees.check_validation_counts_have_the_noise_of_the_plan,
    ),
    "two thirds of the noise on counts": (
        _scaled_noise(2 / 3),
        guarantees.check_validation_counts_have_the_noise_of_the_plan,
    ),
    "three halves of the noise on counts": (
        _scaled_noise(3 / 2),
        guarantees.check_validation_counts_have_the_noise_of_the_plan,
    ),
    "the same noise on every count": (
        _same_noise_for_every_release,
        guarantees.check_validation_counts_have_the_noise_of_the_plan,
    ),
    "a unit that weighs more than 1 in a count": (_records_counted, guarantees.check_a_unit_weighs_1_in_the_counts),
    "correct and total": (_correct_and_total, guarantees.check_a_unit_weighs_1_in_the_counts),
    "counts divided by the number of units": (
        _share_of_the_true_count,
        guarantees.check_a_unit_weighs_1_in_the_counts,
    ),
}
