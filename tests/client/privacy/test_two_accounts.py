"""Shared noise has two accounts: neither passes its cap, and a share leaves once. Each check fails at a planted bug."""

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
from support import accounts, planting
from support.accounts import Spending, replay
from support.ledgers import CAP, FACTS, OTHER, PLAN, SHARED, key, kinds, make_ledger, read_rows, reserve

from confide.client.privacy import ledger as ledger_module
from confide.client.privacy import rules, terms
from confide.client.privacy.account import Account, Reservation
from confide.client.privacy.database import Database
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.terms import Terms
from confide.common.errors import BudgetError, ConfideError, PolicyError
from confide.common.privacy import filter as filter_module
from confide.common.privacy.filter import Cap, Charge, filter_epsilon, if_broken, spent
from confide.common.privacy.plan import PrivacyPlan

STATEMENT, MASKED = "d" * 64, "e" * 64
WHOLE = Charge(SHARED, SHARED.num_steps)
PROMISED, BROKEN = spent([WHOLE], 1e-5, 4), spent(if_broken([WHOLE]), 1e-5, 4)
BOTH = Cap(8.0, 1e-5, 20.0)


def share(ledger: Ledger, number: int = 1, cap: Cap = BOTH, study: str = "study") -> Reservation:
    """A share that is charged and sealed."""
    reservation = reserve(ledger, number, cap, study=study)
    ledger.seal(reservation, "3" * 64, 700)
    return reservation


def release(ledger: Ledger, reservation: Reservation, cap: Cap = BOTH, members: int = 4) -> None:
    ledger.release(reservation, STATEMENT, members, MASKED, 4000, cap)


def opened(path: Path | str = ":memory:", dataset: str = "people", plan: PrivacyPlan = SHARED) -> Ledger:
    ledger = make_ledger(path, dataset=dataset)
    ledger.open_study("study", plan, BOTH)
    return ledger


@contextmanager
def refused(error: type[ConfideError], words: str) -> Iterator[None]:
    with pytest.raises(error, match=words):
        yield


# Checks, which look names up in modules when they run


def check_a_study_must_fit_both_caps() -> None:
    first_row = {"order": 4}
    for cap, fits in (
        (Cap(PROMISED, 1e-5, BROKEN), True),
        (Cap(PROMISED - 1e-4, 1e-5, BROKEN), False),
        (Cap(PROMISED, 1e-5, BROKEN - 1e-4), False),
        (Cap(BROKEN, 1e-5), True),
        (Cap(BROKEN - 1e-4, 1e-5), False),
    ):
        own = filter_module.Cap(cap.max_epsilon, cap.max_delta, cap.max_epsilon_if_broken)
        counted = filter_module.accounts([WHOLE], own, (4, 4))
        assert all(spent(charges, of.max_delta, order) <= of.max_epsilon for charges, of, order in counted) == fits, cap
        account = Account(number=1, first=first_row)
        try:
            rules.may_open(account, "study", SHARED, cap)
        except BudgetError:
            assert not fits, cap
        else:
            assert fits, cap


def check_each_account_has_its_own_order() -> None:
    [plain] = if_broken([WHOLE])
    alone = Spending(plain.plan.sampling_probability, plain.plan.noise_multiplier, WHOLE.num_steps)
    exact = accounts.filter_epsilon([alone], 1e-5, 9)
    assert abs(exact - accounts.filter_epsilon([alone], 1e-5, 3)) > 0.1
    assert filter_module.fits_filter([WHOLE], filter_module.Cap(50.0, 1e-5, exact + 1e-3), (3, 9))
    assert not filter_module.fits_filter([WHOLE], filter_module.Cap(50.0, 1e-5, exact - 1e-3), (3, 9))
    first, second = filter_module.choose_orders(SHARED, Cap(3.0, 1e-5, 12.0))
    assert first == filter_module.choose_order(replace(SHARED, sharing=None), Cap(3.0, 1e-5))
    assert second == filter_module.choose_order(SHARED.if_broken, Cap(12.0, 1e-5))
    assert first != second


def check_the_first_row_fixes_both_orders() -> None:
    cap = Cap(3.0, 1e-5, 12.0)
    row = terms.first_row(Terms("people", "record", 1), SHARED, cap)
    assert (row["order"], row.get("order_if_broken")) == filter_module.choose_orders(SHARED, cap)
    local = terms.first_row(Terms("people", "record", 1), PLAN, CAP)
    assert "order_if_broken" not in local, "a row of a local study is another than before"
    assert "max_epsilon_if_broken" not in local


def check_a_lowered_cap_holds_from_the_next_charge_and_release() -> None:
    account = opened().account()
    account.studies["study"].reserved_steps = 2
    one = [replace(charge, num_steps=2) for charge in if_broken([WHOLE])]
    by_filter = filter_epsilon(one, 1e-5, account.orders[1])
    for second, fits in ((by_filter, True), (by_filter - 1e-4, False)):
        try:
            rules.may_release(account, key(), Cap(8.0, 1e-5, second))
        except BudgetError:
            assert not fits
        else:
            assert fits
    with refused(BudgetError, "policy.max_epsilon_if_broken"):
        rules.may_release(account, key(), Cap(8.0, 1e-5, by_filter - 1e-4))
    with refused(BudgetError, "if the shared noise is broken, epsilon"):
        rules.may_reserve(account, key(2), (1, 0), Cap(8.0, 1e-5, by_filter))


def check_a_round_has_one_release() -> None:
    """Of one reserve, of two reserves of the round, and of two datasets that one key signs for."""
    ledger = opened()
    first, again = share(ledger), share(ledger)
    release(ledger, first)
    account = ledger.account()
    for reservation in (first, again):
        with refused(PolicyError, "released before"):
            rules.require_unreleased(account, reservation.number, 4, [])
    rules.require_unreleased(account, share(ledger, 2).number, 4, [])
    other = opened(dataset="others")
    elsewhere = share(other)
    rules.require_unreleased(other.account(), elsewhere.number, 4, [])
    with refused(PolicyError, "released before"):
        rules.require_unreleased(other.account(), elsewhere.number, 4, [account])


def check_another_process_cannot_come_between_check_and_release() -> None:
    """Another process releases a share of the round just after this one has found that none was released."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        first = share(opened(path))
        database = Database(path)
        database.connection.execute("PRAGMA busy_timeout = 1")
        here = ledger_module.Ledger(Database(path), Terms("people", "record", 1), lambda row, row_hash: None)
        there = Ledger(database, Terms("people", "record", 1), lambda row, row_hash: None)
        real = rules.require_unreleased

        def then_the_other(*asked: object) -> None:
            real(*asked)  # type: ignore[arg-type]
            with contextlib.suppress(ConfideError):
                release(there, first)

        with mock.patch.object(ledger_module, "require_unreleased", then_the_other):
            release(here, first)
        assert [row["kind"] for row, _ in read_rows(path)].count("release") == 1


def check_two_datasets_of_a_file_release_one_share_a_round() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        shares = {name: share(opened(path, name)) for name in ("one", "two")}
        ledgers = {
            name: ledger_module.Ledger(Database(path), Terms(name, "record", 1), lambda row, row_hash: None)
            for name in shares
        }
        release(ledgers["one"], shares["one"])
        with refused(PolicyError, "released before"):
            release(ledgers["two"], shares["two"])
        assert [row["kind"] for row, _ in read_rows(path, "two")].count("release") == 0


CHECKS = [
    check_a_study_must_fit_both_caps,
    check_each_account_has_its_own_order,
    check_the_first_row_fixes_both_orders,
    check_a_lowered_cap_holds_from_the_next_charge_and_release,
    check_a_round_has_one_release,
    check_another_process_cannot_come_between_check_and_release,
    check_two_datasets_of_a_file_release_one_share_a_round,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_two_accounts_as_they_are(check: object) -> None:
    check()  # type: ignore[operator]


_INSIDE = """        with self._chain.transaction() as account:
            # A simulated ledger stands for an institution with a key of its own, whatever else is in its file.
            others = [] if self.terms.simulated else self._chain.others()
            may_release(account, reservation.key, cap)
            require_unreleased(account, reservation.number, members, others)
"""
_BEFORE = """        account = self.account()
        require_unreleased(account, reservation.number, members, [])
        with self._chain.transaction():
"""
BUGS: dict[str, tuple[ModuleType, planting.Planted]] = {}


def _bug(name: str, module: ModuleType, right: str, wrong: str, check: object) -> None:
    BUGS[name] = (module, {name: (right, wrong, check)})  # type: ignore[dict-item]


_bug(
    "second account skipped",
    rules,
    "enumerate(accounts(charges, cap, account.orders))",
    "enumerate([next(accounts(charges, cap, account.orders))])",
    check_a_study_must_fit_both_caps,
)
_bug(
    "second account valued by the sum's noise",
    filter_module,
    "plan=charge.plan.if_broken",
    "plan=charge.plan",
    check_a_study_must_fit_both_caps,
)
_bug(
    "absent second cap means infinite",
    filter_module,
    "self.max_epsilon if second is None else second",
    'float("inf") if second is None else second',
    check_a_study_must_fit_both_caps,
)
_bug(
    "larger of the two caps for both",
    filter_module,
    "yield list(charges), cap, orders[0]",
    "yield list(charges), max(cap, cap.if_broken, key=lambda each: each.max_epsilon), orders[0]",
    check_a_study_must_fit_both_caps,
)
_bug(
    "order of the other account",
    filter_module,
    "cap.if_broken, orders[1]",
    "cap.if_broken, orders[0]",
    check_each_account_has_its_own_order,
)
_bug(
    "order chosen by the other account's plan",
    filter_module,
    "choose_order(plan.if_broken, cap.if_broken)",
    "choose_order(plan, cap)",
    check_each_account_has_its_own_order,
)
_bug(
    "second order not kept",
    terms,
    "if first == second else",
    "if first else",
    check_the_first_row_fixes_both_orders,
)
_bug(
    "release under any cap",
    rules,
    "    _require_still_within(account, key, account.reserved(), cap)\n",
    "",
    check_a_lowered_cap_holds_from_the_next_charge_and_release,
)
_bug(
    "release checked by reserve and not by round",
    rules,
    "item.released and item.key == share.key",
    "item.released and item is share",
    check_a_round_has_one_release,
)
_bug(
    "release checked in one dataset",
    rules,
    "for each in (account, *others)",
    "for each in (account,)",
    check_a_round_has_one_release,
)
_bug(
    "release checked before the transaction only",
    ledger_module,
    _INSIDE,
    _BEFORE,
    check_another_process_cannot_come_between_check_and_release,
)
_bug(
    "other datasets of the file not asked",
    ledger_module,
    "[] if self.terms.simulated else self._chain.others()",
    "[]",
    check_two_datasets_of_a_file_release_one_share_a_round,
)


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_in_the_accounts_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, bug = BUGS[name]
    planting.require_caught(monkeypatch, module, bug[name])


# The rest


def test_a_release_needs_a_seal_enough_members_and_an_open_study_that_shares() -> None:
    ledger = opened()
    unsealed, sealed = reserve(ledger, 1, BOTH), share(ledger, 2)
    before = ledger.rows()
    with refused(PolicyError, "has no SEAL"):
        release(ledger, unsealed)
    with refused(PolicyError, "3 members are refused, the plan has 4 at least"):
        release(ledger, sealed, members=3)
    assert ledger.rows() == before
    local = opened(plan=OTHER)
    with refused(PolicyError, "share no noise"):
        release(local, share(local))
    ledger.close("study")
    with refused(PolicyError, "not open"):
        release(ledger, sealed)
    retired = opened()
    last = share(retired)
    retired.retire()
    with refused(PolicyError, "not open"):
        release(retired, last)


def test_a_released_share_is_known_after_a_restart_and_never_refunded(tmp_path: Path) -> None:
    """A void round is spent: a CLOSE returns only what was never reserved."""
    ledger = opened(tmp_path / "ledger.db")
    release(ledger, share(ledger))
    reserve(ledger, 2, BOTH)  # killed
    share(ledger, 2)  # never released: its round was void
    ledger.close("study")
    account = make_ledger(tmp_path / "ledger.db").account()
    [left, *others] = account.reservations.values()
    assert (left.released, left.released_sha256) == (STATEMENT, MASKED)
    assert [item.released for item in others] == [None, None]
    assert account.reserved()["study"].num_steps == 3
    assert account.epsilon_spent_if_broken(1e-5) == spent(if_broken([Charge(SHARED, 3)]), 1e-5, account.orders[1])
    assert replay(read_rows(tmp_path / "ledger.db")).problems == []


def test_simulated_ledgers_of_one_file_are_institutions_of_their_own() -> None:
    database = Database(":memory:")
    for name in ("one", "two"):
        ledger = Ledger(database, Terms(name, "record", 1, simulated=True), lambda row, row_hash: None)
        ledger.open_study("study", SHARED, BOTH)
        release(ledger, share(ledger))
        with refused(PolicyError, "released before"):
            release(ledger, share(ledger))


def test_a_cap_that_changed_is_noted_by_a_release() -> None:
    ledger, other = opened(), Cap(9.0, 1e-5, 30.0)
    release(ledger, share(ledger), other)
    assert kinds(ledger)[-2:] == ["policy", "release"]
    assert ledger.account().cap == other


def test_a_study_returns_its_rest_only_if_it_fits_the_filter_of_both_accounts() -> None:
    for second, returns in ((20.0, True), (spent(if_broken([WHOLE]), 1e-5, 4) + 1e-3, False)):
        ledger = make_ledger()
        ledger.open_study("study", SHARED, Cap(8.0, 1e-5, second))
        assert ledger.account().studies["study"].returns == returns


def test_the_accounts_of_a_local_study_are_equal() -> None:
    ledger = opened(plan=PLAN)
    ledger.reserve(key(), (3, 0), BOTH, FACTS)
    account = ledger.account()
    assert account.epsilon_spent(1e-5) == account.epsilon_spent_if_broken(1e-5) > 0
    assert not account.shares_noise
    assert opened().account().shares_noise
