"""The checks behind the guarantee's tests, as plain functions.

The test that is named after a sentence of the guarantee calls its check on the product; test_planted_bugs.py and
test_planted_bugs_of_training.py call the same check on a product with a bug in it and assert that it fails. So the
checks reach into the product through its modules, at the time of the call. Statistical ones run at ALPHA.
"""

import os
import re
import tempfile
from contextlib import nullcontext
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load
from scipy.stats import binom, binomtest, chi2_contingency, chisquare, kstest
from support.coins import TestCoins
from support.installations import Asking, update_of, write_site
from support.leaving import CANARY, canary_site, disguises, grouped, search, sent, study, transferred
from support.sites import (
    SECRET,
    DrawsOnly,
    batched,
    flatten,
    make_records,
    make_table,
    random_state,
    records_of,
    train_sum,
)
from support.speed import CPU
from support.toy import ToyUnits, make_plan, toy_step
from support.units_apart import (
    counts_as_clipped_means,
    own_loss,
    same_bits_in_any_company,
    sums_add_up,
    weighs_1_in_the_counts,
)

from confide.client.answers import round as round_module
from confide.client.data import units
from confide.client.site.installation import open_site
from confide.client.training import validation
from confide.common.config.run import RunConfig
from confide.common.config.sections import Transfer
from confide.common.data.batches import Example
from confide.common.model.adapter import set_state
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.privacy.coins import Coins
from confide.common.protocol import transfer
from confide.common.tensors import State

ALPHA = 1e-6


def _assert_normal(values: NDArray[np.float64], stddev: float) -> None:
    assert kstest(values / stddev, "norm").pvalue > ALPHA


# Sampling


def check_sampling_is_poisson() -> None:
    """Over 2,000 steps on 12 units: sizes are binomial, and a unit's steps are independent of each other."""
    plan, site = make_plan(sampling_probability=0.25, declared_units=100), ToyUnits([[]] * 12)
    coins = Coins.fresh()
    for _ in range(2000):
        toy_step(plan, coins, site)
    sizes = np.bincount([min(len(drawn), 6) for drawn in site.draws], minlength=7)
    expected = [*binom.pmf(range(6), 12, 0.25), binom.sf(5, 12, 0.25)]
    assert chisquare(sizes, 2000 * np.array(expected)).pvalue > ALPHA
    taken = np.array([[unit in drawn for unit in range(12)] for drawn in site.draws])
    before, after = taken[:-1].ravel(), taken[1:].ravel()
    counts = [[int(((before == a) & (after == b)).sum()) for b in (False, True)] for a in (False, True)]
    assert chi2_contingency(counts).pvalue > ALPHA


def check_every_local_step_draws_a_mask_of_its_own(model: WarmModel) -> None:
    """Two successive masks at probability 1/2 agree on half of the units."""
    plan, site = make_plan(sampling_probability=0.5), DrawsOnly(200)
    train_sum(plan, model, site, Coins.fresh(), steps=20)
    masks = np.array([np.isin(np.arange(200), drawn) for drawn in site.draws])
    agree = int((masks[1:] == masks[:-1]).sum())
    assert len(site.draws) == 20
    assert binomtest(agree, 19 * 200, 0.5).pvalue > ALPHA


def check_an_empty_draw_still_adds_noise_and_takes_a_step() -> None:
    plan = make_plan()
    site = ToyUnits([[[1.0] * 20_000]] * 3)
    noised = toy_step(plan, TestCoins(3, drawn=False), site, size=20_000)
    assert site.draws == [[]]
    _assert_normal(noised, plan.noise_stddev)


# Noise


def check_noise_has_the_scale_of_the_plan() -> None:
    plan = make_plan(clip_norm=0.5)
    _assert_normal(toy_step(plan, Coins.fresh(), ToyUnits([]), size=20_000), 0.5 * 2.178)


def check_every_local_step_draws_noise_of_its_own(model: WarmModel) -> None:
    """Variances of a hundred steps add up: a head alone has too few numbers to tell twice the deviation from once."""
    plan = make_plan()
    _assert_normal(train_sum(plan, model, DrawsOnly(0), Coins.fresh(), steps=100), 10 * plan.noise_stddev)


def check_public_seeds_do_not_choose_the_noise() -> None:
    steps = []
    for _ in range(2):
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002 - the very thing that must not matter
        steps.append(toy_step(make_plan(), Coins.fresh(), ToyUnits([])))
    assert not (steps[0] == steps[1]).any()


def check_coins_refuse_to_cross_a_fork() -> None:
    coins = Coins.fresh()
    coins.noise_uniforms(1)
    child = os.fork()
    if child == 0:
        try:
            coins.noise_uniforms(1)
        except RuntimeError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Units, clipping, normalisation


def check_the_normaliser_is_public() -> None:
    """One unit counts the same among 1, 4 and 9 units: the sum is divided by a constant of the plan."""
    plan = make_plan(sampling_probability=1.0, declared_units=5, clipping="abadi")
    for count in (1, 4, 9):
        total = toy_step(plan, TestCoins(0, quiet=True), ToyUnits([[[0.5, 0.0, 0.0, 0.5]]] * count))
        np.testing.assert_allclose(total, np.array([0.5, 0.0, 0.0, 0.5]) * count, rtol=1e-6)


def check_a_unit_that_is_not_finite_contributes_zero() -> None:
    plan, good = make_plan(sampling_probability=1.0), [[[1.0, 2.0, 3.0, 4.0]], [[-1.0, 0.5, 0.0, 0.0]]]
    expected = toy_step(plan, TestCoins(0), ToyUnits(good))
    for value in (float("nan"), float("inf"), -float("inf"), 3e38):
        for bad in ([[value, 0.0, 0.0, 0.0]], [[1.0] * 4, [0.0, 0.0, value, value]], [[value] * 4] * 5):
            if value == 3e38 and bad[0][1] != value:
                continue  # one large entry is finite and is clipped like any other
            actual = toy_step(plan, TestCoins(0), ToyUnits([good[0], bad, good[1]]))
            np.testing.assert_array_equal(actual, expected)


def _label_loss(model: WarmModel, example: Example) -> torch.Tensor:
    """The loss of a text classification by its definition, on the states of lower layers that are kept in bfloat16.

    Under adversarial training it is the mean of two: of these states, and of the same moved to where the loss rises.
    """
    ids = torch.tensor([example["input_ids"]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if "token_type_ids" in example:
        inputs["token_type_ids"] = torch.tensor([example["token_type_ids"]])

    def loss_above(states: torch.Tensor | None) -> torch.Tensor:
        with nullcontext() if model.lower is None or states is None else model.lower.given(states):
            logits = model.module(**inputs)
        return torch.nn.functional.cross_entropy(logits, torch.tensor([example["label"]]))

    states = None if model.lower is None else model.prefix(inputs).float()
    if states is None or not model.adversarial:
        return loss_above(states)
    given = states.requires_grad_()
    [rises] = torch.autograd.grad(loss_above(given), given)
    moved = states + model.adversarial * states.norm() * rises / rises.norm()
    return (loss_above(states.detach()) + loss_above(moved.detach())) / 2


def check_a_unit_counts_as_its_clipped_mean_gradient(model: WarmModel) -> None:
    """The step's sum is that of the definition, for groups of 1 to 7 records over micro-batches of several sizes.

    The loss of an example is defined anew for text classification; other kinds have their own, of the example alone.
    """
    table = make_table(model, [*records_of(model, 14, groups=2), *records_of(model, 17, groups=17)[14:]])
    sizes = sorted(map(len, table.units))  # a record may have several windows
    assert len(sizes) == 5
    assert sizes[-2] >= 7
    set_state(model.module, random_state(model))
    counts_as_clipped_means(model, table, _label_loss if model.task.kind == "text-classification" else own_loss)


def check_companions_do_not_change_a_unit(model: WarmModel) -> None:
    """A unit's clipped gradient has the same bits alone, and among 1 to 30 others, at any place in any micro-batch."""
    for groups in (None, 13):
        same_bits_in_any_company(model, make_table(model, records_of(model, 31, groups)))


def check_a_loss_is_of_its_own_example(model: WarmModel) -> None:
    """In shapes that nothing was tried of: a trial would keep those in which the error is the same."""
    sums_add_up(model, make_table(model, records_of(model, 24, groups=7)))


def check_the_order_of_a_unit_s_examples_is_its_own() -> None:
    """Examples that cancel give the same, wherever micro-batches end; in float32, e is lost in one order out of two."""
    for clipping, clip_norm, scale in (("abadi", 1e-5, 1.0), ("automatic", 1.0, 1e4)):
        plan = make_plan(sampling_probability=1.0, clipping=clipping, clip_norm=clip_norm, unit="group")
        group = [[1e4 * scale, 0.0, 0.0, 0.0], [-1e4 * scale, 0.0, 0.0, 0.0], [1e-4 * scale, 0.0, 0.0, 0.0]]
        other = [[0.0, 1.0, 0.0, 0.0]] * 2
        for rows in range(1, 9):
            before = toy_step(plan, TestCoins(0, quiet=True), ToyUnits([group] * 40, rows=rows))
            for more in (1, 2):
                after = toy_step(plan, TestCoins(0, quiet=True), ToyUnits([other] * more + [group] * 40, rows=rows))
                assert np.linalg.norm(after - before) <= more * clip_norm * (1 + 1e-6)


def check_every_micro_batch_has_a_shape_that_was_tried(model: WarmModel) -> None:
    """However many units are drawn: the number of rows is public, and so is the kernel that it selects."""
    site = batched(model, make_table(model, records_of(model, 31)), tokens=150)
    tried = set(site.shapes.all())
    assert len(tried) <= 32
    for size in range(1, site.num_units + 1):
        for batch, unit_B in site.micro_batches(list(range(size))):
            assert tuple(batch["input_ids"].shape) in tried
            assert len(unit_B) <= len(batch["input_ids"])


# Records


def _words(texts: Any) -> set[str]:
    return set(re.findall(r"\w+", repr(texts)))


class PoisonedTokenizer:
    """Raises at the words of one record, as a real one does at text that it cannot encode."""

    def __init__(self, tokenizer: Any, poison: set[str]) -> None:
        self.tokenizer, self.poison = tokenizer, poison

    def __call__(self, *texts: Any, **settings: Any) -> Any:
        if self.poison & _words([texts, settings]):
            raise TypeError("a secret that must not leave")
        return self.tokenizer(*texts, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


def check_a_record_on_which_the_tokenizer_raises_counts_as_absent(model: WarmModel) -> None:
    for groups in (None, 3):
        records = records_of(model, 6, groups)
        poison = {**records[0], **model.task.made_up(6, 0, 5)}
        tokenizer = PoisonedTokenizer(model.tokenizer, _words(poison) - _words(records))
        try:
            table = units.make_units([*records, poison], model.task, tokenizer, SECRET, 8)
        except Exception as error:
            raise AssertionError("a record stopped the round") from error
        assert table == make_table(model, records)


def check_train_or_validation_is_decided_by_the_unit_s_key() -> None:
    """Without any one record, every other record stays where it was."""
    records = make_records(40)
    train, validation = units.split_records(records, SECRET, 0.3)
    assert 0 < len(validation) < len(train)
    for record in records:
        others = [other for other in records if other != record]
        fewer = units.split_records(others, SECRET, 0.3)
        assert fewer == ([r for r in train if r != record], [r for r in validation if r != record])


# What leaves


def _agreeing(run: RunConfig, folder: Path) -> Asking:
    """A server with an institution of its own, on records that are always the same."""
    site = open_site(write_site(folder, make_records(12), policy={"share_metrics": "private"}))
    return Asking(run, lambda: site)


def check_no_server_chooses_the_coins(run: RunConfig) -> None:
    """The same data, run, round and adapter, at two institutions and at one under two lineages: no number twice."""
    with tempfile.TemporaryDirectory() as folder:
        askings = [_agreeing(run, Path(folder) / name) for name in ("one", "two")]
        for what in ("update", "counts"):
            replies = [getattr(asking, what)() for asking in askings]
            replies.append(getattr(askings[0], what)(2, lineage="cd" * 16))
            numbers = [flatten(dict(sorted(load(update_of(reply).payload).items()))) for reply in replies]
            for first, second in combinations(numbers, 2):
                assert first.any()
                assert not (first == second).any(), f"{what}: noise that is not the institution's own"


def check_one_unit_changes_no_message(run: RunConfig) -> None:
    """Number, order, size and bytes of what leaves, but for numbers in tensors and for what is drawn or hashes them."""
    records = make_records(12)
    with tempfile.TemporaryDirectory() as folder:
        everyone = study(run, Path(folder) / "everyone", records)
        for number in (0, 5, 11):
            others = [record for record in records if record != records[number]]
            assert study(run, Path(folder) / str(number), others) == everyone


def check_an_update_is_a_function_of_its_noised_change(run: RunConfig) -> None:
    """What leaves is what everybody can compute from the noised change of the adapter, in every form."""
    changes: list[State] = []
    train = round_module.train

    def watched(*rest: Any) -> State:
        changes.append(train(*rest))
        return changes[-1]

    forms = get_args(Transfer)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(round_module, "train", watched)
        for form in forms:
            payload = update_of(_agreeing(transferred(run, form), Path(folder) / form).update()).payload
            assert payload == transfer.encode(changes[-1], form), f"{form}: something else went into it"
    assert len(changes) == len(forms)


def check_no_private_text_leaves(run: RunConfig) -> None:
    """A canary in every private place of a site; then a run, refusals, and errors that quote it."""
    with tempfile.TemporaryDirectory() as folder:
        path = canary_site(Path(folder))
        site = open_site(path)
        asking = Asking(grouped(run), lambda: site)
        needles = disguises(CANARY, warm_model(run, CPU).tokenizer)
        asking.offer(), asking.update(), asking.counts(), asking.update(3, study="another")
        (path.parent / f"{CANARY}.jsonl").write_text(f"{CANARY}\n", encoding="utf-8")
        asking.restart(lambda: open_site(path))
        asking.offer(), asking.update(2)
        assert not search(b"".join(map(sent, asking.replies)), needles)


# Validation counts


def check_validation_counts_have_the_noise_of_the_plan(model: WarmModel) -> None:
    """Counts of nobody are noise: of the plan's scale, and drawn anew for every release."""
    plan, state = make_plan(validation_releases=1, validation_noise_multiplier=3.0), random_state(model)
    cells = [validation.validate(plan, model, state, [], Coins.fresh())["cells"] for _ in range(3000)]
    assert {cell.dtype for cell in cells} == {np.dtype(np.float32)}
    _assert_normal(np.concatenate(cells).astype(float), 3.0)
    assert len(np.unique(np.concatenate(cells))) > 5990


def check_a_unit_weighs_1_in_the_counts(model: WarmModel) -> None:
    """A unit of any number of records moves the counts by at most 1 in L2 norm, and by 1 in all."""
    set_state(model.module, random_state(model))
    records, sizes = records_of(model, 30), (1, 2, 3, 7, 11, 6)
    several = [records[sum(sizes[:place]) : sum(sizes[: place + 1])] for place in range(len(sizes))]
    weighs_1_in_the_counts(model, several)
