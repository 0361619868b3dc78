import numpy as np
import pytest
from scipy.stats import kstest, pearsonr
from support import guarantees
from support.coins import TestCoins
from support.toy import make_plan

from confide.common.model.warm_model import WarmModel
from confide.common.privacy.coins import Coins
from confide.common.privacy.noise import add_noise, standard_normals


class _Counting(TestCoins):
    """Coins that remember how many were asked for."""

    asked = 0

    def noise_uniforms(self, count: int) -> np.ndarray:
        self.asked += count
        return super().noise_uniforms(count)


def test_noise_has_the_scale_of_the_plan() -> None:
    guarantees.check_noise_has_the_scale_of_the_plan()


def test_every_local_step_draws_noise_of_its_own(model: WarmModel) -> None:
    guarantees.check_every_local_step_draws_noise_of_its_own(model)


@pytest.mark.parametrize("count", [1, 2, 7, 40_001])
def test_normals_are_standard_for_any_count(count: int) -> None:
    normals = standard_normals(Coins.fresh(), count)
    assert normals.shape == (count,)
    assert normals.dtype == np.float64
    assert kstest(normals, "norm").pvalue > guarantees.ALPHA


def test_the_two_halves_of_box_muller_are_independent() -> None:
    normals = standard_normals(Coins.fresh(), 40_000)
    for first, second in ((normals[:20_000], normals[20_000:]), (normals[::2], normals[1::2])):
        assert pearsonr(first, second).pvalue > guarantees.ALPHA
        assert pearsonr(first**2, second**2).pvalue > guarantees.ALPHA


def test_a_normal_is_the_sum_of_four_independent_draws_divided_by_2() -> None:
    uniforms = TestCoins(1).noise_uniforms(8).reshape(4, 2)
    draws = np.sqrt(-2 * np.log(uniforms[:, 0])) * np.cos(2 * np.pi * uniforms[:, 1])
    coins = _Counting(1)
    assert standard_normals(coins, 1).tolist() == pytest.approx([draws.sum() / 2])
    assert coins.asked == 8
    standard_normals(coins, 1000)
    assert coins.asked == 8 + 4000


def test_the_least_and_the_greatest_uniform_give_finite_noise() -> None:
    for value in (2.0**-53, 1.0):
        coins = TestCoins(0)
        coins.noise_uniforms = lambda count, value=value: np.full(count, value)  # type: ignore[method-assign]
        assert np.isfinite(standard_normals(coins, 5)).all()


@pytest.mark.parametrize("noise_multiplier", [0.3, 1.0, 2.178, 1000.0])
def test_the_noised_sum_is_rounded_to_a_public_grid(noise_multiplier: float) -> None:
    plan = make_plan(noise_multiplier=noise_multiplier, clip_norm=0.7)
    grid = 2.0 ** (np.floor(np.log2(plan.noise_stddev)) - 20)
    noised = add_noise(np.full(1000, 0.123456789), plan, Coins.fresh())
    assert noised.dtype == np.float32
    small = noised[np.abs(noised) < 8 * plan.noise_stddev].astype(np.float64)
    np.testing.assert_array_equal(small / grid, np.round(small / grid))


def test_noise_is_added_to_the_sum() -> None:
    total = np.array([1.0, -2.0, 0.5])
    assert add_noise(total, make_plan(), TestCoins(0, quiet=True)).tolist() == [1.0, -2.0, 0.5]
    assert add_noise(total, make_plan(), TestCoins(0)) == pytest.approx(
        total + 2.178 * standard_normals(TestCoins(0), 3), abs=1e-5
    )
