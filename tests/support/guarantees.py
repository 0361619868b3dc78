"""The checks behind the guarantee's tests, as plain functions.

The test that is named after a sentence of the guarantee calls its check on the product; test_planted_bugs.py calls
the same check on a product with a bug in it and asserts that it fails. So the checks reach into the product through
its modules, at the time of the call. Statistical ones run at ALPHA.
"""

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom, binomtest, chi2_contingency, chisquare, kstest
from support.coins import TestCoins
from support.sites import SECRET, DrawsOnly, batched, make_records, make_table, random_state, train_sum
from support.toy import ToyUnits, make_plan, toy_step

from confide.client import units
from confide.common.adapter import coordinate_weights, schema, set_state
from confide.common.batches import Example
from confide.common.privacy.clipping import STABILITY
from confide.common.privacy.coins import Coins
from confide.common.privacy.plan import PrivacyPlan
from confide.common.warm_model import WarmModel

ALPHA = 1e-6
TOLERANCE = 1e-5  # float32, at clip norm 1


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
    train_sum(plan, model, site, Coins.fresh(), local_steps=20)
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
    """Variances of four steps add up; the same noise four times would have twice the standard deviation."""
    plan = make_plan()
    _assert_normal(train_sum(plan, model, DrawsOnly(0), Coins.fresh(), local_steps=4), 2 * plan.noise_stddev)


def check_public_seeds_do_not_choose_the_noise() -> None:
    steps = []
    for _ in range(2):
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002 - the very thing that must not matter
        steps.append(toy_step(make_plan(), Coins.fresh(), ToyUnits([])))
    assert not np.isin(steps[0], steps[1]).any()


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


def _reference(plan: PrivacyPlan, model: WarmModel, unit: list[Example]) -> NDArray[np.float64]:
    """A unit's clipped gradient by its definition: plain autograd, one example at a time, without padding."""
    model.wrapped.disable_hooks()
    parameters = [parameter for parameter in model.module.parameters() if parameter.requires_grad]
    gradients = []
    for example in unit:
        ids = torch.tensor([example["input_ids"]])
        logits = model.module(input_ids=ids, attention_mask=torch.ones_like(ids))
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([example["label"]]))
        gradients.append(torch.cat([g.ravel() for g in torch.autograd.grad(loss, parameters)]).double())
    weights = coordinate_weights(schema(model.module), plan.head_weight).double()
    mean = torch.stack(gradients).mean(dim=0) * weights
    factor = plan.clip_norm / (mean.norm() + STABILITY)
    if plan.clipping == "abadi":
        factor = min(1.0, plan.clip_norm / mean.norm())
    return (mean * factor / weights).numpy()


def check_a_unit_counts_as_its_clipped_mean_gradient(model: WarmModel) -> None:
    """The step's sum is that of the definition, for groups of 1 to 7 records over micro-batches of several sizes."""
    table = make_table(model, [*make_records(14, groups=2), *make_records(17, groups=17)[14:]])
    assert sorted(map(len, table.units)) == [1, 1, 1, 7, 7]
    set_state(model.module, random_state(model))
    plan = make_plan(sampling_probability=1.0, head_weight=0.5, clip_norm=0.5)
    expected = sum(_reference(plan, model, unit) for unit in table.units)
    for tokens in (1, 70, 200, 10_000):
        actual = train_sum(plan, model, batched(model, table, tokens), TestCoins(0, quiet=True))
        np.testing.assert_allclose(actual, expected, atol=TOLERANCE)


def check_companions_do_not_change_a_unit(model: WarmModel) -> None:
    """A unit adds the same to a step alone and among shorter, longer and larger companions."""
    plan = make_plan(sampling_probability=1.0)
    table = make_table(model, make_records(24, groups=7))

    def step_sum(chosen: list[list[Example]]) -> NDArray[np.float64]:
        site = batched(model, units.UnitTable(chosen), tokens=150)
        return train_sum(plan, model, site, TestCoins(0, quiet=True))

    everyone = step_sum(table.units)
    for number, unit in enumerate(table.units):
        others = table.units[:number] + table.units[number + 1 :]
        np.testing.assert_allclose(everyone - step_sum(others), step_sum([unit]), atol=TOLERANCE)


# Records


class _Tokenizer:
    """Raises at one text, as a real one does at text that it cannot encode."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: str, **settings: Any) -> Any:
        if text == "poison":
            raise TypeError("a secret that must not leave")
        return self.tokenizer(text, **settings)


def check_a_record_on_which_the_tokenizer_raises_counts_as_absent(model: WarmModel) -> None:
    for groups in (None, 3):
        records = make_records(6, groups)
        poison = {**records[0], "text": "poison"}
        try:
            table = units.make_units([*records, poison], model.task, _Tokenizer(model.tokenizer), SECRET, 8)
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
