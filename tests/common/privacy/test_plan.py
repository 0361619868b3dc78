import importlib
import inspect
import pkgutil
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from support.coins import TestCoins
from support.toy import ToyUnits, make_plan, toy_step

from confide.common import privacy
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.noise import add_noise
from confide.common.privacy.plan import NoPrivacy, PrivacyPlan
from confide.common.privacy.secure.sharing import Sharing


def test_the_plan_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        make_plan().noise_multiplier = 0.1  # type: ignore[misc]


def test_no_function_takes_a_bare_noise_multiplier() -> None:
    for info in pkgutil.walk_packages(privacy.__path__, "confide.common.privacy."):
        module = importlib.import_module(info.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            assert not {"noise_multiplier", "noise_stddev", "clip_norm"} & set(
                inspect.signature(function).parameters
            ), name


def test_the_sampler_the_clip_the_noise_and_the_accountant_read_the_same_plan() -> None:
    plan = make_plan(sampling_probability=1.0)
    assert epsilon(replace(plan, noise_multiplier=4.0)) < epsilon(plan)
    assert epsilon(replace(plan, sampling_probability=0.5)) < epsilon(plan)
    site = ToyUnits([[[3.0, 0.0, 0.0, 4.0]]])
    for clip_norm in (1.0, 2.0):
        total = toy_step(replace(plan, clip_norm=clip_norm, clipping="abadi"), TestCoins(0, quiet=True), site)
        assert total == pytest.approx([0.6 * clip_norm, 0, 0, 0.8 * clip_norm], rel=3e-5)


def test_noise_stddev_is_noise_multiplier_times_clip_norm() -> None:
    assert make_plan(noise_multiplier=3.0, clip_norm=0.5).noise_stddev == 1.5


def test_expected_batch_size_is_public() -> None:
    assert make_plan(sampling_probability=0.1, declared_units=2000).expected_batch_size == pytest.approx(200.0)
    assert NoPrivacy(0.1, 5, 2000).expected_batch_size == pytest.approx(200.0)


@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        ((0.0, 5, 10), "sampling_probability=0.0"),
        ((1.001, 5, 10), "sampling_probability=1.001"),
        ((0.1, 0, 10), "num_steps=0"),
        ((0.1, 5, 0), "declared_units=0"),
    ],
)
def test_a_plan_without_privacy_refuses_what_no_step_could_use(numbers: tuple[float, int, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        NoPrivacy(*numbers)


def test_the_least_and_the_most_of_a_plan_without_privacy_are_taken() -> None:
    assert NoPrivacy(1.0, 1, 1).expected_batch_size == 1.0


def test_training_without_privacy_is_another_type_that_no_private_step_takes() -> None:
    assert not issubclass(NoPrivacy, PrivacyPlan)
    with pytest.raises(AttributeError):
        add_noise(ToyUnits, NoPrivacy(0.1, 5, 2000), TestCoins(0))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        toy_step(NoPrivacy(1.0, 5, 2000), TestCoins(0), ToyUnits([[[1.0] * 4]]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unit", "token"),
        ("clipping", "none"),
        ("sampling_probability", 0.0),
        ("sampling_probability", 1.4),
        ("sampling_probability", float("nan")),
        ("num_steps", 0),
        ("declared_units", 0),
        ("clip_norm", 0.0),
        ("clip_norm", float("inf")),
        ("noise_multiplier", 0.0),
        ("noise_multiplier", -1.0),
        ("noise_multiplier", float("nan")),
        ("target_delta", 0.0),
        ("target_delta", 1.0),
        ("head_weight", 0.0),
        ("head_weight", float("inf")),
        ("validation_releases", -1),
        ("validation_noise_multiplier", 0.0),
        ("validation_noise_multiplier", float("nan")),
        ("validation_noise_multiplier", 1.1e6),
    ],
)
def test_a_field_out_of_range_is_named_with_its_value_and_rule(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{name}={value!r} must be "):
        make_plan(**{name: value})


def test_a_changed_plan_is_another_plan() -> None:
    """The ledger freezes the plan when a study opens: a plan that differs in any one field is not the same plan."""
    changed = {
        "unit": "group",
        "sampling_probability": 0.2,
        "num_steps": 11,
        "declared_units": 41,
        "clip_norm": 1.1,
        "clipping": "abadi",
        "noise_multiplier": 2.179,
        "target_delta": 1e-6,
        "head_weight": 0.5,
        "validation_releases": 1,
        "validation_noise_multiplier": 9.0,
        "sharing": Sharing(3, 1, 19, 3 * 2**38),
    }
    assert set(changed) == {field.name for field in fields(PrivacyPlan)}
    plans = {make_plan(**{name: value}) for name, value in changed.items()}
    assert len(plans | {make_plan()}) == len(changed) + 1
    assert make_plan() == make_plan()


def test_a_plan_whose_noise_is_shared_takes_no_less_than_it_states() -> None:
    plan = make_plan(noise_multiplier=1.6254)
    shared = plan.shared(18, 3, 800)
    assert shared.noise_multiplier >= 1.6254
    assert shared.sharing is not None
    assert shared.sharing.grid_bits == 19
    sharing = shared.sharing
    for less in (replace(sharing, share_variance=sharing.share_variance - 2**20), replace(sharing, max_colluding=4)):
        with pytest.raises(ValueError, match=r"noise_multiplier=1\.6\d* must be at most what 1\d shares add"):
            replace(shared, sharing=less)


def test_one_share_alone_never_has_more_noise_than_the_sum_states() -> None:
    """So the account of a share alone bounds every mixture of broken and unbroken studies."""
    plan = make_plan(noise_multiplier=1.6254).shared(18, 3, 800)
    alone = plan.if_broken.noise_multiplier
    assert replace(plan, noise_multiplier=alone).if_broken.noise_multiplier == alone
    with pytest.raises(ValueError, match=rf"noise_multiplier=.* must be at least {alone}"):
        replace(plan, noise_multiplier=alone - 1e-6)


def test_a_floor_under_each_share_raises_the_noise_of_the_sum() -> None:
    plan = make_plan(noise_multiplier=1.6254).shared(18, 3, 800, floor=0.5545)
    assert plan.if_broken.noise_multiplier == pytest.approx(0.5545, abs=1e-5)
    assert plan.noise_multiplier == pytest.approx(0.5545 * 15**0.5, abs=1e-4)


def test_those_who_collude_take_their_noise_away() -> None:
    plan = make_plan(noise_multiplier=1.6254).shared(18, 3, 800)
    assert plan.if_colluding(3).noise_multiplier == pytest.approx(1.6254, abs=1e-4)
    assert plan.if_colluding(4).noise_multiplier == pytest.approx(1.6254 * (14 / 15) ** 0.5, abs=1e-4)
    assert plan.if_broken.noise_multiplier == pytest.approx(1.6254 / 15**0.5, abs=1e-4)
    assert plan.if_broken.sharing is None
    assert make_plan().if_broken == make_plan() == make_plan().if_colluding(2)
