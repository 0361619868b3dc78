"""The settings of a secure sum: each rule by its name, and the values that locking fixes."""

import math
import re
from pathlib import Path

import pytest

from confide.common.config.run import RunConfig, lock, make_plan
from confide.common.errors import InputError
from confide.common.privacy.accounting import attack_true_positive_rate, epsilon
from confide.common.privacy.plan import PrivacyPlan

NAMES = [f"hospital-{number:02d}" for number in range(20)]
KEYS = {name: f"{number:064x}" for number, name in enumerate(NAMES)}
BASE = "ab" * 32
TASK = {"kind": "text-classification", "labels": ["a", "b"]}


def _run(**changes: dict[str, object]) -> RunConfig:
    sections: dict[str, dict[str, object]] = {
        "study": {"name": "sums", "institutions": tuple(NAMES)},
        "task": {**TASK, "labels": ("a", "b")},
        "federation": {"num_rounds": 20, "min_clients": 18, "aggregation": "secure-sum", "weights": "declared"},
        "local": {"sampling_probability": 0.2, "nominal_units": 200},
        "privacy": {"max_colluding": 3},
    }
    for section, values in changes.items():
        sections[section] = {**sections[section], **values}
    return RunConfig.model_validate(sections)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"study": {"institutions": ("a", "a")}}, "has 2 names, 1 of them different"),
        ({"study": {"institutions": tuple(str(n) for n in range(201))}}, "a secure sum needs 2 to 200"),
        ({"study": {"institutions": (*NAMES[1:], "a\0b")}}, r"'a\\x00b' must be 1 to 64 printable"),
        ({"federation": {"min_clients": 21}}, "min_clients = 21 must be at most the 20 names"),
        ({"federation": {"min_clients": 11}}, "min_clients = 11 is too low for 20 institutions.*at least 12"),
        ({"privacy": {"max_colluding": 17}}, "must be at least 19"),
        ({"local": {"steps": 2}}, "takes one step in a round, local.steps = 2"),
        ({"privacy": {"unit": "none"}}, "privacy.unit = 'none' has none"),
        ({"federation": {"weights": "equal"}}, "use weights = 'declared'"),
        ({"federation": {"participation": 0.5}}, "use participation = 1.0"),
        ({"federation": {"sum_seconds": 20.0}}, "sum_seconds = 20 must be at least 20 above release_seconds = 1"),
        ({"study": {"institutions": (), "keys": KEYS}}, "study.institutions has 0 names"),
        ({"study": {"keys": dict(list(KEYS.items())[1:])}}, "one key of its own for each name"),
        ({"study": {"keys": {**KEYS, NAMES[0]: KEYS[NAMES[1]]}}}, "one key of its own for each name"),
        ({"study": {"keys": {**KEYS, NAMES[0]: "AB" * 32}}}, "study.keys.hospital-00 must be 64 lower-case hex digits"),
        ({"federation": {"aggregation": "fedavg"}}, "privacy.max_colluding is set, but federation.aggregation is not"),
    ],
)
def test_a_setting_that_does_not_fit_a_sum_is_named(changes: dict[str, dict[str, object]], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        _run(**changes)


def test_two_sums_of_a_round_always_share_an_honest_institution() -> None:
    """2 m > N + c, in the smallest cases: one less is refused."""
    for num, most_colluding in ((4, 0), (5, 1), (20, 3), (50, 10)):
        fewest = (num + most_colluding) // 2 + 1
        study = {"institutions": tuple(str(n) for n in range(num))}
        for least in (fewest, fewest - 1):
            changes = {"study": study, "federation": {"min_clients": max(least, 2)}}
            changes["privacy"] = {"max_colluding": most_colluding}
            if least == fewest:
                _run(**changes)
            else:
                with pytest.raises(ValueError, match=f"must be at least {fewest}"):
                    _run(**changes)


def test_locking_fixes_the_share_and_a_locked_run_locks_to_itself() -> None:
    locked = lock(_run(), BASE)
    plan = make_plan(locked, 200)
    assert locked.privacy.grid_bits == 19
    assert locked.privacy.noise_multiplier == pytest.approx(1.6254, abs=1e-4)
    assert plan.if_broken.noise_multiplier == pytest.approx(1.6254 / math.sqrt(15), abs=1e-4)  # type: ignore[union-attr]
    assert lock(locked, BASE) == locked
    assert RunConfig.model_validate_json(locked.canonical_json()) == locked


def test_a_floor_under_each_share_lowers_the_first_epsilon_too() -> None:
    locked = lock(_run(privacy={"target_epsilon_if_broken": 20.0}), BASE)
    plan = make_plan(locked, 200)
    assert epsilon(plan.if_broken) <= 20  # type: ignore[union-attr]
    assert locked.privacy.target_epsilon == epsilon(plan) == pytest.approx(2.01, abs=0.01)  # type: ignore[arg-type]
    assert lock(locked, BASE) == locked


def test_a_run_without_institutions_is_not_locked() -> None:
    with pytest.raises(InputError, match=r"study.institutions is empty, but a secure sum needs the names and keys"):
        lock(_run(study={"institutions": ()}), BASE)


def test_a_run_whose_shares_alone_protect_nobody_is_not_locked() -> None:
    with pytest.raises(InputError, match=r"set privacy\.target_epsilon_if_broken, 8 to 20 is advised"):
        lock(_run(privacy={"target_epsilon": 8.0}), BASE)


def test_a_share_that_adds_too_little_is_no_plan() -> None:
    locked = lock(_run(), BASE)
    less = locked.privacy.model_copy(update={"share_variance": (locked.privacy.share_variance or 0) // 2})
    with pytest.raises(ValueError, match="must be at most what 15 shares add"):
        make_plan(locked.model_copy(update={"privacy": less}), 200)


def test_runs_without_a_sum_say_nothing_of_it() -> None:
    plain = RunConfig.model_validate({"study": {"name": "plain"}, "task": {**TASK, "labels": ("a", "b")}})
    text = plain.canonical_json()
    assert not [
        word for word in ("keys", "sum_seconds", "colluding", "broken", "grid_bits", "variance") if word in text
    ]


@pytest.mark.parametrize("floor", [None, 20.0, 8.0])
def test_the_figures_of_the_documents_are_those_of_the_plan(floor: float | None) -> None:
    """In the example of docs/secure-sum.md: each is its number, rounded up in the last digit that is shown."""
    docs = Path(__file__).parents[3] / "docs"
    text = (docs / "secure-sum.md").read_text(encoding="utf-8")
    [row] = re.findall(rf"^\| {'none' if floor is None else f'{floor:g}'} \|(.*)\|$", text, re.MULTILINE)
    plan = make_plan(lock(_run(privacy={"target_epsilon_if_broken": floor}), BASE), 200)
    assert isinstance(plan, PrivacyPlan)
    plans = [plan, plan.if_colluding(4), plan.if_colluding(5), plan.if_broken]
    found = [100 * attack_true_positive_rate(one, 0.01) for one in (plan, plan.if_broken)]
    for shown, number in zip(row.split("|"), [*map(epsilon, plans), *found], strict=True):
        digits = len(shown.strip().partition(".")[2])
        assert number <= float(shown) < number + 10.0**-digits, (shown, number)
    assert f"{math.ceil(found[-1])}" in text.partition("## Words")[0]
