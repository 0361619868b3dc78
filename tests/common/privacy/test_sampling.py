import numpy as np
import pytest
from support import guarantees
from support.coins import TestCoins
from support.toy import make_plan

from confide.common.model.warm_model import WarmModel
from confide.common.privacy.coins import Coins
from confide.common.privacy.plan import NoPrivacy
from confide.common.privacy.sampling import draw_units


class _Masks(TestCoins):
    """Given uniforms."""

    def __init__(self, uniforms: list[float]) -> None:
        super().__init__(0)
        self.uniforms = uniforms

    def mask_uniforms(self, count: int) -> np.ndarray:
        return np.array(self.uniforms[:count])


def test_sampling_is_poisson() -> None:
    guarantees.check_sampling_is_poisson()


def test_a_mask_is_drawn_anew_in_every_local_step(model: WarmModel) -> None:
    guarantees.check_every_local_step_draws_a_mask_of_its_own(model)


def test_a_unit_is_drawn_when_its_uniform_is_at_most_the_sampling_probability() -> None:
    coins = _Masks([0.25, 0.2500001, 1.0, 2.0**-53])
    assert draw_units(make_plan(sampling_probability=0.25), coins, 4) == [0, 3]


def test_the_sampling_probability_does_not_depend_on_the_number_of_records() -> None:
    """Under the same coins a unit is drawn or not whatever stands behind it."""
    plan = make_plan(sampling_probability=0.3)
    masks = [set(draw_units(plan, TestCoins(5), count)) for count in (10, 20, 4000)]
    assert masks[0] == masks[1] & set(range(10)) == masks[2] & set(range(10))


@pytest.mark.parametrize("plan", [make_plan(sampling_probability=1.0), NoPrivacy(1.0, 5, 10)])
def test_probability_1_draws_every_unit(plan: object) -> None:
    assert draw_units(plan, Coins.fresh(), 50) == list(range(50))  # type: ignore[arg-type]


def test_a_draw_may_be_empty() -> None:
    assert draw_units(make_plan(), TestCoins(0, drawn=False), 10) == []
    assert draw_units(make_plan(), Coins.fresh(), 0) == []
