"""The ledger: charged for ever, pinned for ever, all or none; by one process, two, or after a crash."""

import multiprocessing
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import accounts
from support.accounts import Spending, replay
from support.ledgers import (
    CAP,
    FACTS,
    LINEAGE,
    OTHER,
    PLAN,
    Place,
    key,
    kinds,
    make_ledger,
    open_place,
    read_rows,
    reserve,
    spend,
)

from confide.client.privacy.account import AnswerKey
from confide.client.privacy.ledger import Ledger
from confide.common.errors import BudgetError, ConfideError, PolicyError
from confide.common.privacy.filter import Cap, choose_order
from confide.common.privacy.plan import NoPrivacy

PLAIN = NoPrivacy(0.2, 6, 40)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """With the study open."""
    result = make_ledger(tmp_path / "ledger.db")
    result.open_study("study", PLAN, CAP)
    return result


def again(ledger: Ledger) -> Ledger:
    """The same file, as another process sees it."""
    return make_ledger(ledger._chain._database.path)


def refuses(ledger: Ledger, error: type[Exception], number: int = 1, cap: Cap = CAP, **charge: Any) -> None:
    """A refusal, which must leave no trace."""
    before = ledger.rows()
    with pytest.raises(error):
        reserve(ledger, number, cap, **charge)
    assert ledger.rows() == again(ledger).rows() == before


# OPEN


def test_the_first_row_fixes_dataset_unit_and_order(ledger: Ledger) -> None:
    first, opened = (row for row, _ in ledger.rows())
    assert (first["kind"], first["dataset"], first["unit"], first["simulated"]) == (
        "dataset",
        "people",
        "record",
        False,
    )
    assert first["order"] == choose_order(PLAN, CAP)
    assert opened["accountant"].startswith("dp-accounting 0.")
    assert (opened["kind"], opened["steps"], opened["releases"], opened["plan"]) == ("open", 6, 2, dict_of(PLAN))


def test_the_accounts_of_a_file_are_this_one_and_then_every_other(tmp_path: Path) -> None:
    """A client asks all of them whether its secret was known before."""
    first, second = (make_ledger(tmp_path / "ledger.db", dataset=name) for name in ("first", "second"))
    first.open_study("of first", PLAN, CAP)
    second.open_study("of second", PLAN, CAP)
    assert [list(account.studies) for account in first.accounts()] == [["of first"], ["of second"]]
    assert [list(account.studies) for account in second.accounts()] == [["of second"], ["of first"]]


def dict_of(plan: Any) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in plan.__slots__ if name != "sharing"}  # none, as in older rows


def test_open_is_all_or_none(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "ledger.db")
    with pytest.raises(BudgetError):
        ledger.open_study("study", PLAN, Cap(1.0, 1e-5))
    assert ledger.rows() == []
    ledger.open_study("study", PLAN, CAP)
    with pytest.raises(BudgetError):
        ledger.open_study("other", OTHER, Cap(3.0, 1e-5))
    assert kinds(ledger) == ["dataset", "open"]


def test_the_same_plan_again_changes_nothing(ledger: Ledger) -> None:
    before = ledger.rows()
    for same in (ledger, again(ledger)):
        same.open_study("study", PLAN, CAP)
    assert ledger.rows() == before


def test_the_plan_is_pinned(ledger: Ledger) -> None:
    for change in ({"noise_multiplier": 1.0}, {"num_steps": 7}, {"sampling_probability": 0.3}):
        with pytest.raises(PolicyError, match="another plan"):
            again(ledger).open_study("study", replace(PLAN, **change), CAP)
    assert kinds(ledger) == ["dataset", "open"]


def test_the_unit_is_pinned(ledger: Ledger) -> None:
    for terms in ({"unit": "group"}, {"max_records_per_group": 8}):
        other = make_ledger(ledger._chain._database.path, **terms)
        with pytest.raises(PolicyError, match="since the ledger's first row"):
            other.open_study("new", OTHER, CAP)
        with pytest.raises(PolicyError, match="since the ledger's first row"):
            other.approve("new", "2" * 64, OTHER, CAP)
    assert kinds(ledger) == ["dataset", "open"]


def test_an_approval_is_noted_once_and_binds_study_and_run(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "ledger.db")
    for _ in range(2):
        ledger.approve("study", "2" * 64, PLAN, CAP)
    assert kinds(ledger) == ["dataset", "approve"]
    assert again(ledger).account().approved == {("study", "2" * 64)}


def test_an_approval_of_a_run_without_privacy_that_never_runs_blocks_nothing() -> None:
    """At order 2 the conversion alone costs epsilon 10: no second study ever fits."""
    ledger = make_ledger()
    ledger.approve("plain", "2" * 64, PLAIN, CAP)
    ledger.open_study("study", PLAN, CAP)
    ledger.open_study("other", OTHER, CAP)


# RESERVE


def test_no_charge_is_refunded(ledger: Ledger) -> None:
    """Not by a restart, not by a second attempt, not by CLOSE, not by another policy."""
    reserve(ledger)
    ledger = again(ledger)
    reserve(ledger)
    for cap in (Cap(100.0, 1e-3), CAP):
        ledger.open_study("study", PLAN, cap)
    ledger.close("study")
    ledger.retire()
    assert again(ledger).account().reserved()["study"].num_steps == 2
    assert again(ledger).account().epsilon_spent(1e-5) >= accounts.pld_epsilon((Spending(0.2, 2.0, 2),), 1e-5)


def test_the_allotment_is_all_there_is(ledger: Ledger) -> None:
    for number in range(1, 7):
        reserve(again(ledger), number)
    refuses(ledger, BudgetError, 7)
    assert replay(ledger.rows()).reserved == {"study": (6, 0)}


def test_a_charge_of_several_steps_is_all_or_none(ledger: Ledger) -> None:
    reserve(ledger, 1, steps=4)
    refuses(ledger, BudgetError, 2, steps=3)
    reserve(ledger, 2, steps=2)


def test_a_round_is_tried_again_once_at_most(ledger: Ledger) -> None:
    reserve(ledger)
    reserve(again(ledger))
    for same in (ledger, again(ledger)):
        refuses(same, PolicyError)
    assert [row["attempt"] for row, _ in ledger.rows() if row["kind"] == "reserve"] == [1, 2]


def test_a_refused_round_leaves_no_trace(ledger: Ledger) -> None:
    """Neither a row nor, of the policy that refused it, one."""
    for number in range(1, 4):
        reserve(ledger, number)
    refuses(ledger, BudgetError, 4, Cap(0.5, 1e-5))
    refuses(ledger, PolicyError, 4, study="another")
    reserve(ledger, 4)
    assert "policy" not in kinds(ledger)


def test_a_cap_that_is_lowered_in_mid_study_holds_at_once(ledger: Ledger) -> None:
    for number in range(1, 4):
        reserve(ledger, number)
    order = ledger.account().first["order"]
    lower = Cap(accounts.filter_epsilon([Spending(0.2, 2.0, 4)], 1e-5, order) + 1e-4, 1e-5)
    reserve(ledger, 4, lower)
    refuses(ledger, BudgetError, 5, lower)
    refuses(again(ledger), BudgetError, 5, lower)
    assert kinds(ledger)[-2:] == ["policy", "reserve"]


def test_a_cap_that_is_raised_is_a_row_and_allots_nothing(ledger: Ledger) -> None:
    higher = Cap(50.0, 1e-5)
    reserve(ledger, 1, higher)
    assert kinds(ledger)[-2:] == ["policy", "reserve"]
    assert again(ledger).account().cap == higher
    refuses(ledger, BudgetError, 2, higher, steps=6)
    ledger.open_study("other", OTHER, higher)
    assert replay(ledger.rows()).problems == []


def test_every_policy_is_a_row_once(ledger: Ledger) -> None:
    caps = [CAP, Cap(9.0, 1e-5), Cap(9.0, 1e-5), CAP]
    for number, cap in enumerate(caps, 1):
        reserve(ledger, number, cap)
    assert kinds(ledger)[2:] == ["reserve", "policy", "reserve", "reserve", "policy", "reserve"]


def test_a_row_names_all_that_it_answers_and_the_cap_in_force(ledger: Ledger) -> None:
    reservation = ledger.reserve(key(3), (2, 0), CAP, FACTS)
    row, row_hash = ledger.rows()[-1]
    assert reservation.hash == row_hash
    expected = {"study": "study", "lineage": LINEAGE, "what": "update", "round": 3, "steps": 2, "releases": 0}
    assert row == {**row, **expected, **FACTS, "attempt": 1, "max_epsilon": 8.0, "max_delta": 1e-5}


# CLOSE, RETIRE, without privacy


def test_close_frees_what_was_never_reserved(tmp_path: Path) -> None:
    cap = Cap(3.35, 1e-5)
    ledger = make_ledger(tmp_path / "ledger.db")
    ledger.approve("study", "2" * 64, PLAN, CAP)  # at order 4
    ledger.open_study("study", PLAN, cap)
    reserve(ledger, 1, cap)
    with pytest.raises(BudgetError):
        ledger.open_study("next", PLAN, cap)
    ledger.close("study")
    ledger.open_study("next", PLAN, cap)
    refuses(ledger, PolicyError, 2, cap)
    assert replay(ledger.rows()).problems == []


def test_close_again_changes_nothing(ledger: Ledger) -> None:
    for name in ("study", "study", "another"):
        ledger.close(name)
    assert kinds(ledger) == ["dataset", "open", "close"]


def test_a_study_that_fits_by_pld_alone_blocks_any_other_for_ever(tmp_path: Path) -> None:
    """PLD 1.40, filter 1.61; even of a study that costs next to nothing, and even after CLOSE."""
    ledger, cap = make_ledger(tmp_path / "ledger.db"), Cap(1.5, 1e-5)
    ledger.open_study("study", PLAN, cap)
    assert not ledger.rows()[-1][0]["returns"]
    reserve(ledger, 1, cap)
    for _ in range(2):
        with pytest.raises(BudgetError):
            ledger.open_study("tiny", replace(OTHER, noise_multiplier=1e5, num_steps=1), cap)
        ledger.close("study")


def test_a_retired_ledger_takes_nothing_any_more(ledger: Ledger) -> None:
    reservation = reserve(ledger)
    ledger.retire()
    ledger.retire()
    assert kinds(ledger)[-1:] == ["retire"]
    refuses(again(ledger), PolicyError, 2)
    with pytest.raises(PolicyError, match="retired"):
        again(ledger).open_study("other", OTHER, CAP)
    ledger.seal(reservation, "3" * 64, 1)  # what was charged before may still be answered
    assert replay(ledger.rows()).problems == []


def test_a_ledger_without_rows_can_be_retired() -> None:
    ledger = make_ledger()
    try:
        ledger.retire()
    except ConfideError:
        return
    with pytest.raises(PolicyError):
        ledger.open_study("study", PLAN, CAP)


def test_training_without_privacy_is_an_infinite_row(tmp_path: Path) -> None:
    ledger = make_ledger(tmp_path / "ledger.db")
    for _ in range(2):
        ledger.open_study("plain", PLAIN, CAP)
    reserve(ledger, 1, study="plain", steps=10**6)
    assert kinds(ledger) == ["dataset", "infinite", "reserve"]
    assert again(ledger).account().epsilon_spent(1e-5) == float("inf")
    with pytest.raises(BudgetError, match="without privacy"):
        again(ledger).open_study("study", PLAN, Cap(1e6, 1e-2))


def test_filter_and_pld_count_what_was_reserved(ledger: Ledger) -> None:
    ledger.open_study("other", OTHER, CAP)
    reserve(ledger, 1, steps=3)
    reserve(ledger, 1, study="other", steps=2)
    spent = [Spending(0.2, 2.0, 3), Spending(1.0, 4.0, 2)]
    by_filter, by_pld = ledger.account().by_filter_and_pld(1e-5)
    assert by_filter == pytest.approx(accounts.filter_epsilon(spent, 1e-5, ledger.account().first["order"]), abs=2e-4)
    assert by_pld == pytest.approx(accounts.pld_epsilon(tuple(spent), 1e-5), abs=2e-3)
    assert ledger.account().epsilon_spent(1e-5) == by_filter


# Several processes


def test_processes_that_reserve_at_once_never_overspend_together(tmp_path: Path) -> None:
    """Two processes would like ten rounds each, of the 20 that are allotted, under a cap that allows 15."""
    plan, path = replace(PLAN, num_steps=20), tmp_path / "ledger.db"
    ledger = make_ledger(path)
    ledger.open_study("study", plan, CAP)
    lower = Cap(accounts.filter_epsilon([Spending(0.2, 2.0, 15)], 1e-5, ledger.account().first["order"]) + 1e-4, 1e-5)
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=spend, args=(path, name, lower, 10)) for name in "cd"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert replay(read_rows(path)).reserved == {"study": (15, 0)}
    assert replay(read_rows(path)).problems == []


def test_ledgers_that_take_turns_never_overspend_together(ledger: Ledger) -> None:
    both, refused = [ledger, again(ledger)], 0
    for number in range(1, 10):
        try:
            reserve(both[number % 2], number)
        except BudgetError:
            refused += 1
    assert refused == 3
    assert replay(ledger.rows()).reserved == {"study": (6, 0)}


# A full disk


def test_a_full_disk_charges_nothing_and_computes_nothing(tmp_path: Path) -> None:
    place = open_place(tmp_path)
    place.ask(1)
    before, database = place.rows(), place.ledger._chain._db
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count={pages}")
    filled = fill(place)
    assert place.made == 1 + filled, "nothing is computed that was not charged"
    database.execute("PRAGMA max_page_count=100000")
    assert place.rows()[: len(before)] == before
    assert replay(place.rows()).problems == []


def fill(place: Place) -> int:
    """Ask until the disk is full; how many rounds were charged."""
    with pytest.raises(ConfideError, match="cannot be used"):
        any(place.ask(number) == b"" for number in range(2, 7))
    return sum(row["kind"] == "reserve" for row, _ in place.rows()) - 1


# Keys, and a lock


def test_every_key_of_an_answer_is_part_of_its_key(ledger: Ledger) -> None:
    """Study, lineage, what and round: two answers that differ in one of them are two answers."""
    ledger.open_study("other", OTHER, CAP)
    keys = [key(), key(2), key(1, "other"), key(1, what="validation"), AnswerKey("study", "cd" * 16, "update", 1)]
    for item in keys:
        assert ledger.reserve(item, (int(item.what == "update"), int(item.what != "update")), CAP, FACTS)
    assert [row["attempt"] for row, _ in ledger.rows() if row["kind"] == "reserve"] == [1] * 5


def test_a_locked_ledger_is_an_error_of_ours(ledger: Ledger) -> None:
    ledger._chain._db.execute("PRAGMA busy_timeout=0")
    path = ledger._chain._database.path
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ConfideError, match="locked"):
        reserve(ledger)
    other.execute("ROLLBACK")
    assert reserve(ledger).number == 3
