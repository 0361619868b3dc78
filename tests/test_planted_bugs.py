"""Every planted bug of the step, of training, of what leaves, of ledger and release makes a check fail.

The checks are those of support/guarantees.py and support/ledger_guarantees.py, which the tests named after the
guarantee run on the product as it is.
"""

import gzip
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from support import guarantees, ledger_guarantees, sites
from support.coins import TestCoins

from confide.client.answers import app, offer
from confide.client.answers import round as round_module
from confide.client.data import units
from confide.client.privacy import chain, decision, ledger, release, rollback, row_kinds, rules
from confide.client.training import batches, local_steps, shares, validation
from confide.common.config.run import RunConfig, lock
from confide.common.data.shapes import public_shapes
from confide.common.errors import LedgerError
from confide.common.failpoints import failpoint
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import WarmModel
from confide.common.privacy import gradients, noise, plan, step
from confide.common.privacy.clipping import clip
from confide.common.privacy.coins import Coins
from confide.common.protocol import answers, transfer
from confide.common.tasks import TextClassification

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

        def private_step(plan: Any, coins: Any, units: Any, *rest: Any) -> Any:
            result = real_step(plan, coins, units, *rest)
            return (result * plan.expected_batch_size / max(1.0, divisor(units, drawn))).astype(np.float32)

        patch.setattr(step, "draw_units", draw)
        patch.setattr(step, "private_step", private_step)

    return plant


def _loss_divided_by(divisor: Callable[[Any], Any]) -> Plant:
    real = TextClassification.losses

    def losses(self: Any, module: Any, batch: Any) -> Any:
        return real(self, module, batch) / divisor(batch)

    return lambda patch: patch.setattr(TextClassification, "losses", losses)


# Units and clipping


def _clipped_in_each_micro_batch(patch: pytest.MonkeyPatch) -> None:
    real = gradients.unit_means
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

    patch.setattr(gradients, "_average", average)


def _rows_left_out(patch: pytest.MonkeyPatch) -> None:
    """A micro-batch of as many rows as there are examples."""
    real = batches.BatchedUnits.batch
    patch.setattr(
        batches.BatchedUnits, "batch", lambda units, places, shape: real(units, places, (len(places), shape[1]))
    )


def _shapes_untried(patch: pytest.MonkeyPatch) -> None:
    """And a kernel that few rows select, which gives the last bits in another way."""
    real = TextClassification.losses

    def losses(self: Any, module: Any, batch: Any) -> Any:
        return real(self, module, batch) * (1 + 1e-6 * (len(batch["label"]) < 4))

    patch.setattr(TextClassification, "losses", losses)
    patch.setattr(sites, "tried_shapes", lambda model, tokens: public_shapes(model.task.max_length, tokens, 10_000))


def _clipped_by_example(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(step, "unit_means", lambda parts: (gradients_BP for gradients_BP, _ in parts))


def _mean_of_clipped_examples(patch: pytest.MonkeyPatch) -> None:
    real = gradients.unit_means

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
            task.encode(record, tokenizer)
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

    def count(model: Any, units: Any) -> Any:
        right, wrong = real(model, units)
        return np.array([right, right + wrong])

    patch.setattr(validation, "count_cells", count)


def _share_of_the_true_count(patch: pytest.MonkeyPatch) -> None:
    real = validation.count_cells
    patch.setattr(validation, "count_cells", lambda model, units: real(model, units) / max(1, len(units)))


# What leaves


def _coins_of_the_server(patch: pytest.MonkeyPatch) -> None:
    """A generator seeded by what the run says, as one seeds everything else."""
    real_train, real_validate = round_module.train, round_module.validate
    patch.setattr(round_module, "train", lambda work, model, units, coins: real_train(work, model, units, TestCoins(7)))
    patch.setattr(round_module, "validate", lambda *rest: real_validate(*rest[:-1], TestCoins(7)))


def _error_told(as_value: Callable[[str], Any]) -> Plant:
    """Tell the server why, as everybody would like to know."""

    def guarded(answer: Any, message: Any, site: Any, client: Any) -> Any:
        try:
            return answer(message.content, site, client)
        except Exception as error:  # noqa: BLE001 - as the product does
            return RecordDict({"declined": ConfigRecord({"reason": as_value(str(error))})})

    return lambda patch: patch.setattr(app, "_guarded", guarded)


def _error_for_flower(patch: pytest.MonkeyPatch) -> None:
    """Let it through to Flower's runtime, which sends its text."""
    patch.setattr(app, "declined", lambda: (_ for _ in ()).throw(ValueError("an error is an error")))


def _counted_units(patch: pytest.MonkeyPatch) -> None:
    """Declare what there is, instead of what somebody typed."""
    real, found = shares.split_records, list[int]()

    def split_records(records: list[Any], *rest: Any) -> Any:
        found[:] = [len(records)]  # before the split: a keyed hash shares them out anew in every study
        return real(records, *rest)

    patch.setattr(shares, "split_records", split_records)
    patch.setattr(offer, "Acceptance", lambda name, declared, key: answers.Acceptance(name, found[0], key))


def _count_beside_the_tensors(patch: pytest.MonkeyPatch) -> None:
    """`num_examples`, as every framework has it."""

    def encode(state: Any, form: Any) -> bytes:
        return transfer.encode({**state, "num_examples": np.zeros(1, np.float32)}, form)

    patch.setattr(round_module, "encode", encode)


def _scale_of_the_signal(patch: pytest.MonkeyPatch) -> None:
    """The range of int8 is that of the sum before the noise, which is a better fit."""
    real, largest = step.add_noise, []

    def add_noise(sum_P: Any, plan: Any, coins: Any) -> Any:
        largest[:] = [np.abs(sum_P).max() / plan.expected_batch_size]
        return real(sum_P, plan, coins)

    def encode(state: Any, form: Any) -> bytes:
        return transfer.encode({name: np.clip(value, -largest[0], largest[0]) for name, value in state.items()}, form)

    patch.setattr(step, "add_noise", add_noise)
    patch.setattr(round_module, "encode", encode)


def _rounded_by_private_coins(patch: pytest.MonkeyPatch) -> None:
    real = transfer._round
    patch.setattr(transfer, "_round", lambda values, seed: real(values, os.urandom(32)))


def _count_as_an_id(patch: pytest.MonkeyPatch) -> None:
    real = round_module.seal_envelope

    def seal(*rest: Any) -> Any:
        return replace(real(*rest), update_id="20")

    patch.setattr(round_module, "seal_envelope", seal)


def _labels_seen(patch: pytest.MonkeyPatch) -> None:
    """No answer where a class has few records, so as not to train on next to nothing."""
    real = shares.prepare

    def prepare(data: Any, compute: Any, model: Any, *, joining: bool) -> Any:
        labels = [record["label"] for record in data.records(model.task)]
        if min(labels.count(label) for label in model.task.labels) < 6:
            raise ValueError("too few records of a class")
        return real(data, compute, model, joining=joining)

    patch.setattr(shares, "prepare", prepare)


# Ledger and release


def _charged_at_the_seal(patch: pytest.MonkeyPatch) -> None:
    """What was never sent cost nothing."""
    real, prices = dict(row_kinds._KINDS), {}

    def reserve(account: Any, row: Any, row_hash: str) -> None:
        prices[row["number"]] = (row["study"], row["steps"])
        real["reserve"](account, {**row, "steps": 0}, row_hash)

    def seal(account: Any, row: Any, row_hash: str) -> None:
        study, steps = prices[row["reserve"]]
        account.studies[study].reserved_steps += steps
        real["seal"](account, row, row_hash)

    patch.setitem(row_kinds._KINDS, "reserve", reserve)
    patch.setitem(row_kinds._KINDS, "seal", seal)


def _closed_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    real = row_kinds._KINDS["close"]

    def close(account: Any, row: Any, row_hash: str) -> None:
        real(account, row, row_hash)
        account.studies[row["study"]].reserved_steps = 0

    patch.setitem(row_kinds._KINDS, "close", close)


def _three_attempts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rules, "_MAX_ATTEMPTS", 3)


def _cap_of_the_opening(patch: pytest.MonkeyPatch) -> None:
    real = ledger.may_reserve
    patch.setattr(ledger, "may_reserve", lambda account, *rest: real(account, *rest[:-1], account.opened_under))


def _hashes_not_computed(patch: pytest.MonkeyPatch) -> None:
    """Believe the hash that stands beside a row."""

    def catch_up(self: Any) -> None:
        for row, row_hash in self._read(self.account.number):
            row_kinds.add_row(self.account, row, row_hash)

    patch.setattr(chain.Chain, "_catch_up", catch_up)


def _witnesses_not_asked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rollback.Witnesses, "check", lambda self, rows: None)


def _release_in_another_order(order: str) -> Plant:
    """One of: make, reserve, put, seal; reserve, make, seal, put."""

    def releasing(request: Any, ledger: Any, outbox: Any, agree: Any, make: Any) -> bytes:
        done: dict[str, Any] = {"reserve": None}

        def reserve() -> Any:
            facts = {"input_sha256": request.input_sha256, "run_sha256": request.run_sha256, "coins": "os"}
            return ledger.reserve(request.key, (request.num_steps, request.num_releases), agree()[0], facts)

        def seal() -> None:
            failpoint("before-seal")
            ledger.seal(done["reserve"], hashlib.sha256(done["make"]).hexdigest(), 1)
            failpoint("after-seal")

        lines = {
            "make": lambda: make(done["reserve"], None),
            "reserve": reserve,
            "put": lambda: outbox.put(release._name(done["reserve"]), done["make"]),
            "seal": seal,
        }
        for earlier in ledger.account().answers.get(request.key, []):
            if earlier.sealed_sha256:
                return release._sealed(earlier, outbox)
        for name in order.split(", "):
            done[name] = lines[name]()
        return bytes(done["make"])

    return lambda patch: patch.setattr(release, "release", releasing)


def _every_attempt_is_new(patch: pytest.MonkeyPatch) -> None:
    """No answer is recognised as sealed."""
    patch.setitem(row_kinds._KINDS, "seal", lambda account, row, row_hash: None)


def _file_taken_for_its_seal(patch: pytest.MonkeyPatch) -> None:
    """It is complete, so why compute it again."""
    real = release.release

    def releasing(request: Any, ledger: Any, outbox: Any, *rest: Any) -> bytes:
        for earlier in ledger.account().answers.get(request.key, []):
            if content := outbox.get(release._name(earlier)):
                return bytes(content)
        return real(request, ledger, outbox, *rest)

    patch.setattr(release, "release", releasing)


def _plan_not_compared(patch: pytest.MonkeyPatch) -> None:
    real = ledger.may_open

    def may_open(account: Any, name: str, *rest: Any) -> bool:
        return name not in account.studies and real(account, name, *rest)

    for place in (ledger, decision):  # either alone would refuse
        patch.setattr(place, "may_open", may_open)


def _key_restored_on_retry(patch: pytest.MonkeyPatch) -> None:
    """Kept beside the round, so that the retry gives the same update."""
    real = round_module.train
    patch.setattr(round_module, "train", lambda work, model, units, coins: real(work, model, units, Coins(bytes(32))))


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
        _loss_divided_by(lambda batch: batch["attention_mask"].sum()),
        guarantees.check_a_loss_is_of_its_own_example,
    ),
    "loss divided by the batch's size": (
        _loss_divided_by(lambda batch: len(batch["label"])),
        guarantees.check_a_loss_is_of_its_own_example,
    ),
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

LEAVING_BUGS: dict[str, PlantedBug] = {
    "coins of a server-chosen seed": (_coins_of_the_server, guarantees.check_no_server_chooses_the_coins),
    "an error text that leaves": (_error_told(str), guarantees.check_no_private_text_leaves),
    "an error text that leaves packed": (
        _error_told(lambda text: gzip.compress(text.encode())),
        guarantees.check_no_private_text_leaves,
    ),
    "an error that Flower answers": (_error_for_flower, guarantees.check_no_private_text_leaves),
    "number of units in an acceptance": (_counted_units, guarantees.check_one_unit_changes_no_message),
    "number of units beside the tensors": (_count_beside_the_tensors, guarantees.check_one_unit_changes_no_message),
    "a scale from before the noise": (
        _scale_of_the_signal,
        guarantees.check_an_update_is_a_function_of_its_noised_change,
    ),
    "rounding by private coins": (
        _rounded_by_private_coins,
        guarantees.check_an_update_is_a_function_of_its_noised_change,
    ),
    "number of units as an id": (_count_as_an_id, guarantees.check_one_unit_changes_no_message),
    "participation by labels": (_labels_seen, guarantees.check_one_unit_changes_no_message),
}

RELEASE_BUGS: dict[str, PlantedBug] = {
    "refund after a crash": (_charged_at_the_seal, ledger_guarantees.check_a_crash_refunds_nothing),
    "refund by CLOSE": (_closed_is_forgotten, ledger_guarantees.check_a_crash_refunds_nothing),
    "a third attempt": (_three_attempts, ledger_guarantees.check_a_round_has_one_retry_at_most),
    "the cap under which a study was opened": (
        _cap_of_the_opening,
        ledger_guarantees.check_a_lowered_cap_holds_from_the_next_charge,
    ),
    "hashes that are not computed": (_hashes_not_computed, ledger_guarantees.check_an_edited_row_is_refused),
    "witnesses that are not asked": (_witnesses_not_asked, ledger_guarantees.check_an_old_ledger_is_refused),
    "computed before it is charged": (
        _release_in_another_order("make, reserve, put, seal"),
        ledger_guarantees.check_the_charge_comes_before_the_computation,
    ),
    "sealed before it is written": (
        _release_in_another_order("reserve, make, seal, put"),
        ledger_guarantees.check_a_sealed_answer_is_never_lost,
    ),
    "a resend that is computed again": (_every_attempt_is_new, ledger_guarantees.check_a_resend_is_identical_and_free),
    "a file taken for its SEAL": (
        _file_taken_for_its_seal,
        ledger_guarantees.check_an_answer_without_a_seal_is_never_sent,
    ),
}

CLIENT_BUGS: dict[str, PlantedBug] = {
    "noise lowered by the server in mid-study": (
        _plan_not_compared,
        ledger_guarantees.check_no_server_lowers_the_noise_in_mid_study,
    ),
    "key restored on retry": (_key_restored_on_retry, ledger_guarantees.check_a_retry_draws_everything_anew),
}


@pytest.mark.parametrize("bug", STEP_BUGS)
def test_a_bug_in_the_step_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, check = STEP_BUGS[bug]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("bug", TRAINING_BUGS)
def test_a_bug_in_training_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch, model: WarmModel) -> None:
    plant, check = TRAINING_BUGS[bug]
    plant(monkeypatch)
    monkeypatch.setattr(local_steps, "private_step", step.private_step)
    with pytest.raises(AssertionError):
        check(model)


@pytest.mark.parametrize("bug", COUNTING_BUGS)
def test_a_bug_in_validation_counts_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch, model: WarmModel) -> None:
    plant, check = COUNTING_BUGS[bug]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(model)


@pytest.fixture
def run(make_run: Callable[..., RunConfig], base_folder: Path) -> RunConfig:
    """Two rounds with validation counts, in which every unit is drawn."""
    local = {"sampling_probability": 1.0, "nominal_units": 20}
    run = make_run(local=local, federation={"num_rounds": 2}, evaluation={"validation_every": 1})
    return lock(run, hash_model(base_folder))


@pytest.mark.parametrize("bug", LEAVING_BUGS)
def test_a_bug_in_what_leaves_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch, run: RunConfig) -> None:
    plant, check = LEAVING_BUGS[bug]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(run)


@pytest.mark.parametrize("bug", RELEASE_BUGS)
def test_a_bug_in_ledger_or_release_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plant, check = RELEASE_BUGS[bug]
    plant(monkeypatch)
    with pytest.raises((AssertionError, LedgerError)):
        check(tmp_path)


@pytest.mark.parametrize("bug", CLIENT_BUGS)
def test_a_bug_in_the_client_is_caught(
    bug: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: RunConfig
) -> None:
    plant, check = CLIENT_BUGS[bug]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(tmp_path, run)


def test_every_check_of_the_guarantee_fails_at_some_planted_bug() -> None:
    checks = {name for name in [*vars(guarantees), *vars(ledger_guarantees)] if name.startswith("check_")}
    bugs = [STEP_BUGS, TRAINING_BUGS, COUNTING_BUGS, LEAVING_BUGS, RELEASE_BUGS, CLIENT_BUGS]
    assert checks == {check.__name__ for group in bugs for _, check in group.values()}
