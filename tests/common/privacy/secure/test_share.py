"""A share of a secure sum: the sum of clipped gradients in grid steps, and its part of the noise."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.coins import TestCoins
from support.planting import Planted, require_caught
from support.toy import Toy, ToyUnits, make_plan, toy_step

from confide.common.privacy import step
from confide.common.privacy.coins import Coins, CoinSource
from confide.common.privacy.gradients import wrap
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.secure import share
from confide.common.protocol.secure_sum import as_signed

PLAN = make_plan(sampling_probability=1.0, clipping="abadi", noise_multiplier=0.5).shared(4, 1, 800)
UNITS = ToyUnits([[[3.0, 0.0, 0.0, 4.0]], [[0.1, 0.2, 0.0, 0.0]], [[0.0, 0.0, -9.0, 0.0]]])


def _share(plan: PrivacyPlan, coins: CoinSource, units: ToyUnits, size: int = 4) -> NDArray[np.uint32]:
    module = wrap(Toy(size))
    return share.private_share(plan, coins, [step.Worker(units, module, module)], torch.ones(size))


def test_a_share_is_the_clipped_sum_plus_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "discrete_gaussian", lambda variance, count, coins: np.zeros(count, np.int64))
    found = as_signed(_share(PLAN, TestCoins(0), UNITS)) / 2**19
    assert found == pytest.approx([0.6 + 0.1, 0.2, -1.0, 0.8], abs=1e-4)
    empty = _share(replace(PLAN, sampling_probability=0.5), TestCoins(0, drawn=False), UNITS)
    assert empty.tolist() == [0, 0, 0, 0]


def test_an_empty_draw_has_noise_too() -> None:
    plan = replace(PLAN, sampling_probability=0.5)
    found = as_signed(_share(plan, TestCoins(0, drawn=False), ToyUnits([[[1.0] * 400]]), 400))
    assert plan.sharing is not None
    assert abs(found.var() / plan.sharing.share_variance - 1) < 5 * math.sqrt(2 / 400)


def test_a_share_s_noise_has_the_plan_s_variance_and_no_other() -> None:
    assert PLAN.sharing is not None
    drawn = as_signed(share.noised_share(np.zeros(50_000, np.int64), PLAN.sharing, Coins.fresh()))
    assert abs(drawn.var() / PLAN.sharing.share_variance - 1) < 5 * math.sqrt(2 / 50_000)


def test_honest_shares_together_have_the_noise_that_accounting_counts() -> None:
    assert PLAN.sharing is not None
    honest = PLAN.sharing.num_honest
    total = sum(
        share.noised_share(np.zeros(50_000, np.int64), PLAN.sharing, Coins.fresh()).astype(np.int64)
        for _ in range(honest)
    )
    found = as_signed((total % 2**32).astype(np.uint32)) / 2**19
    assert found.var() >= PLAN.noise_multiplier**2 * (1 - 5 * math.sqrt(2 / 50_000))
    assert found.var() <= PLAN.noise_multiplier**2 * (1 + 5 * math.sqrt(2 / 50_000)) + 1e-6


def test_several_devices_give_the_very_share_of_one() -> None:
    """Whole numbers add up to the same in any order."""
    first, second = wrap(Toy(4)), wrap(Toy(4))
    second.load_state_dict(first.state_dict())
    workers = [step.Worker(UNITS, first, first), step.Worker(UNITS, second, second)]
    alone, together = (share.private_share(PLAN, TestCoins(0), some, torch.ones(4)) for some in (workers[:1], workers))
    np.testing.assert_array_equal(together, alone)


def test_each_plan_has_one_step() -> None:
    with pytest.raises(ValueError, match="use private_share"):
        toy_step(PLAN, TestCoins(0), UNITS)
    with pytest.raises(ValueError, match="use private_step"):
        _share(make_plan(), TestCoins(0), UNITS)


PLANTED: Planted = {
    "variance-over-members": (
        "discrete_gaussian(sharing.share_variance,",
        "discrete_gaussian(sharing.share_variance // sharing.num_honest,",
        test_a_share_s_noise_has_the_plan_s_variance_and_no_other,
    ),
    "no-noise-on-an-empty-draw": (
        "return noised_share(sum_P.numpy(), sharing, coins)",
        "return noised_share(sum_P.numpy(), sharing, coins) if drawn else np.zeros(len(weights_P), 'u4')",
        test_an_empty_draw_has_noise_too,
    ),
    "one-step-for-both-plans": (
        "if plan.sharing is None:",
        "if plan.sharing is None:\n        plan = plan.shared(3, 1, 1)\n    if False:",
        test_each_plan_has_one_step,
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_caught(monkeypatch, share, PLANTED[name])
