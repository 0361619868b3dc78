"""When a ledger may open a study or charge a round: on accounts, without any file."""

from dataclasses import replace
from typing import Any

import pytest
from support import accounts
from support.accounts import Spending
from support.ledgers import CAP, LINEAGE, OTHER, PLAN, key

from confide.client.privacy.account import Account, AnswerKey
from confide.client.privacy.row_kinds import add_row
from confide.client.privacy.rules import may_open, may_reserve, require_steps_left, require_unit
from confide.common.errors import BudgetError, PolicyError
from confide.common.privacy.filter import Cap, Charge, filter_epsilon, fits_filter, spent
from confide.common.privacy.plan import NoPrivacy, PrivacyPlan

PLAIN = NoPrivacy(0.2, 6, 40)
# PLAN costs 1.40 by PLD and 1.61 by the filter at order 10, so between them it fits alone and with nothing else.
ALONE = Cap(1.5, 1e-5)


def account(cap: Cap = CAP, order: int = 4) -> Account:
    """An account with its first row."""
    result = Account()
    add(result, "dataset", dataset="people", unit="record", max_records_per_group=1, order=order, **as_row(cap))
    return result


def as_row(cap: Cap) -> dict[str, float]:
    return {"max_epsilon": cap.max_epsilon, "max_delta": cap.max_delta}


def add(to: Account, kind: str, **values: Any) -> None:
    number = to.number + 1
    add_row(to, {"kind": kind, "number": number, **values}, f"{number:064}")


def opened(to: Account, name: str = "study", plan: PrivacyPlan = PLAN, cap: Cap = CAP) -> Account:
    assert may_open(to, name, plan, cap)
    whole = Charge(plan, plan.num_steps, plan.validation_releases)
    returns = fits_filter([*to.allotted(), whole], cap, to.orders)
    values = {field: getattr(plan, field) for field in plan.__slots__}
    allotted = {"steps": plan.num_steps, "releases": plan.validation_releases, "returns": returns}
    add(to, "open", study=name, plan=values, **allotted, **as_row(cap))
    return to


def reserved(to: Account, number: int, cap: Cap = CAP, *, steps: int = 1, name: str = "study") -> int:
    attempt = may_reserve(to, key(number, name), (steps, 0), cap)
    add(to, "reserve", study=name, lineage=LINEAGE, what="update", round=number, steps=steps, releases=0,
        input_sha256="1", run_sha256="2")  # fmt: skip
    return attempt


# OPEN


def test_a_spent_study_takes_no_new_run_but_lets_its_own_come_back() -> None:
    """A sealed answer is sent again at no charge, so the run that has answers here may return."""
    study = opened(account())
    require_steps_left(study, "study", "f" * 32)
    for number in range(1, PLAN.num_steps + 1):
        reserved(study, number)
    require_steps_left(study, "study", LINEAGE)
    require_steps_left(study, "another")
    for lineage in (None, "f" * 32):
        with pytest.raises(BudgetError, match=rf"all {PLAN.num_steps} steps of study study are spent"):
            require_steps_left(study, "study", lineage)


def test_a_refusal_names_the_epsilon_that_was_compared() -> None:
    """The filter's where other studies may follow; an exact account of one study alone would be lower."""
    study, lower = opened(account(order=10)), Cap(0.01, 1e-5)
    with pytest.raises(BudgetError) as refused:
        may_reserve(study, key(1), (1, 0), lower)
    filtered = filter_epsilon([Charge(PLAN, 1)], 1e-5, 10)
    assert filtered != spent([Charge(PLAN, 1)], 1e-5, 10)
    assert f"with it, epsilon {filtered} at delta 1e-05 would be spent" in str(refused.value)


def test_the_unit_is_fixed_with_the_first_row() -> None:
    require_unit(account(), "record", 1)
    for unit, most in (("group", 1), ("record", 2), ("group", 8)):
        with pytest.raises(PolicyError, match="since the ledger's first row"):
            require_unit(account(), unit, most)


def test_the_same_plan_again_needs_no_opening() -> None:
    assert not may_open(opened(account()), "study", PLAN, CAP)


@pytest.mark.parametrize(
    "change",
    [
        {"noise_multiplier": 1.9},
        {"noise_multiplier": 2.1},
        {"sampling_probability": 0.1},
        {"num_steps": 5},
        {"num_steps": 7},
        {"clip_norm": 2.0},
        {"clipping": "abadi"},
        {"target_delta": 1e-6},
        {"declared_units": 50},
        {"head_weight": 2.0},
        {"validation_releases": 3},
        {"validation_noise_multiplier": 9.0},
        {"unit": "group"},
    ],
    ids=str,
)
def test_a_study_pins_its_plan(change: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="another plan"):
        may_open(opened(account()), "study", replace(PLAN, **change), CAP)


def test_a_study_with_privacy_is_not_one_without_and_the_other_way_round() -> None:
    with pytest.raises(PolicyError, match="another plan"):
        may_open(opened(account()), "study", PLAIN, CAP)
    without = account()
    add(without, "infinite", study="study")
    assert not may_open(without, "study", PLAIN, CAP)
    with pytest.raises(PolicyError, match="another plan"):
        may_open(without, "study", PLAN, CAP)


def test_after_training_without_privacy_nothing_can_be_promised() -> None:
    without = account()
    add(without, "infinite", study="plain")
    assert without.infinite
    assert without.epsilon_spent(1e-5) == float("inf")
    with pytest.raises(BudgetError, match="without privacy"):
        may_open(without, "study", PLAN, CAP)
    assert may_open(without, "more", PLAIN, CAP)


def test_there_is_no_half_of_a_study() -> None:
    """The whole plan fits under the cap, or nothing of it is allotted."""
    whole = accounts.pld_epsilon((Spending(0.2, 2.0, 6, 10.0, 2),), 1e-5)
    assert may_open(account(), "study", PLAN, Cap(whole + 1e-4, 1e-5))
    with pytest.raises(BudgetError, match="is refused"):
        may_open(account(), "study", PLAN, Cap(whole - 1e-6, 1e-5))


def test_across_studies_the_filter_decides() -> None:
    two = [Spending(0.2, 2.0, 6, 10.0, 2), Spending(1.0, 4.0, 4)]
    exact = accounts.filter_epsilon(two, 1e-5, 4)
    first = opened(account())
    assert may_open(first, "other", OTHER, Cap(exact + 1e-4, 1e-5))
    with pytest.raises(BudgetError):
        may_open(first, "other", OTHER, Cap(exact - 1e-6, 1e-5))


def test_a_study_that_fits_alone_blocks_any_other_for_ever() -> None:
    first, other = opened(account(order=10), cap=ALONE), replace(OTHER, noise_multiplier=1e5)
    with pytest.raises(BudgetError):
        may_open(first, "other", other, ALONE)
    reserved(first, 1, ALONE)
    add(first, "close", study="study")
    with pytest.raises(BudgetError):
        may_open(first, "other", other, ALONE)


def test_a_closed_study_is_not_opened_again() -> None:
    closed = opened(account())
    add(closed, "close", study="study")
    with pytest.raises(PolicyError, match="closed"):
        may_open(closed, "study", PLAN, CAP)


def test_close_returns_what_was_never_reserved() -> None:
    """Two whole plans at order 4 take 3.43; one whole and one step take less."""
    first, cap = opened(account(cap=Cap(3.35, 1e-5)), cap=Cap(3.35, 1e-5)), Cap(3.35, 1e-5)
    reserved(first, 1, cap)
    with pytest.raises(BudgetError):
        may_open(first, "next", PLAN, cap)
    add(first, "close", study="study")
    assert may_open(first, "next", PLAN, cap)


def test_a_retired_ledger_opens_and_reserves_nothing() -> None:
    retired = opened(account())
    add(retired, "retire")
    for name in ("study", "new"):
        with pytest.raises(PolicyError, match="retired"):
            may_open(retired, name, PLAN, CAP)
    with pytest.raises(PolicyError, match="not open"):
        may_reserve(retired, key(), (1, 0), CAP)


# RESERVE


def test_nothing_is_reserved_in_a_study_that_is_not_open() -> None:
    closed = opened(account())
    add(closed, "close", study="study")
    for ledger in (account(), closed):
        with pytest.raises(PolicyError, match="not open"):
            may_reserve(ledger, key(), (1, 0), CAP)


def test_a_round_is_tried_again_once_at_most() -> None:
    ledger = opened(account())
    assert [reserved(ledger, 1), reserved(ledger, 1), reserved(ledger, 2)] == [1, 2, 1]
    with pytest.raises(PolicyError, match="had its retry"):
        may_reserve(ledger, key(1), (1, 0), CAP)
    assert may_reserve(ledger, key(1, what="validation"), (0, 1), CAP) == 1
    assert may_reserve(ledger, AnswerKey("study", "cd" * 16, "update", 1), (1, 0), CAP) == 1


def test_reserved_never_passes_what_was_allotted() -> None:
    ledger = opened(account())
    reserved(ledger, 1, steps=5)
    for charge in ((2, 0), (0, 3), (10**6, 0)):
        with pytest.raises(BudgetError, match="5 of the 6 steps"):
            may_reserve(ledger, key(2), charge, CAP)
    assert may_reserve(ledger, key(2), (1, 2), CAP) == 1


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_cap_lowered_in_mid_study_holds_from_the_next_reserve(steps: int) -> None:
    """The study may be followed by others, so the filter counts: so many steps fit under the new cap, and no more."""
    ledger = opened(account(order=10))
    lower = Cap(accounts.filter_epsilon([Spending(0.2, 2.0, steps)], 1e-5, 10) + 1e-4, 1e-5)
    for number in range(1, steps + 1):
        reserved(ledger, number, lower)
    with pytest.raises(BudgetError, match="max_epsilon"):
        may_reserve(ledger, key(steps + 1), (1, 0), lower)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_under_a_lowered_cap_a_study_that_blocks_all_others_has_its_own_pld(steps: int) -> None:
    ledger = opened(account(order=10), cap=ALONE)
    lower = Cap(accounts.pld_epsilon((Spending(0.2, 2.0, steps),), 1e-5) + 1e-4, 1e-5)
    for number in range(1, steps + 1):
        reserved(ledger, number, lower)
    with pytest.raises(BudgetError, match="max_epsilon"):
        may_reserve(ledger, key(steps + 1), (1, 0), lower)


def test_a_cap_lowered_below_what_is_spent_stops_all_studies() -> None:
    ledger = opened(opened(account()), "other", OTHER)
    reserved(ledger, 1)
    reserved(ledger, 1, name="other")
    for name in ("study", "other"):
        with pytest.raises(BudgetError):
            may_reserve(ledger, key(2, name), (1, 0), Cap(1.0, 1e-5))


def test_a_lower_max_delta_counts_as_another_cap() -> None:
    ledger = opened(account(order=10), cap=ALONE)
    with pytest.raises(BudgetError):
        may_reserve(ledger, key(), (6, 0), Cap(ALONE.max_epsilon, 1e-9))


def test_under_a_cap_that_was_raised_the_allotment_still_holds() -> None:
    ledger = opened(account())
    with pytest.raises(BudgetError, match="0 of the 6 steps"):
        may_reserve(ledger, key(), (7, 0), Cap(100.0, 1e-5))


def test_a_study_that_others_may_follow_keeps_to_the_filter_under_a_lower_cap() -> None:
    """Between its PLD and its filter the server could still choose, by what it saw, between it and another."""
    ledger = opened(account(order=10))
    with pytest.raises(BudgetError):
        may_reserve(ledger, key(), (6, 2), ALONE)


def test_pld_is_no_excuse_once_another_study_is_open() -> None:
    """The cap is raised, another study opened, the cap lowered again: now the server may choose between the two."""
    ledger = opened(opened(account(order=10), cap=ALONE), "other", OTHER)
    with pytest.raises(BudgetError):
        may_reserve(ledger, key(), (6, 2), Cap(1.45, 1e-5))


def test_training_without_privacy_is_counted_by_attempts_only() -> None:
    without = account()
    add(without, "infinite", study="study")
    assert [reserved(without, 1, steps=99), reserved(without, 1, steps=99)] == [1, 2]
    with pytest.raises(PolicyError, match="retry"):
        may_reserve(without, key(1), (1, 0), CAP)
