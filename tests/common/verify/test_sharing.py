"""Ledgers of studies that share noise: both accounts are recomputed, and each way to lie about either is found."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.ledgers import SHARED, kinds, make_ledger
from support.ledgers import key as ask
from support.verifying import (
    CAP,
    ORDER,
    PLAN,
    Row,
    as_lines,
    dataset_row,
    first_line,
    open_row,
    reserve_row,
    run_verify,
    seal_row,
)

from confide.client.privacy.ledger import Ledger
from confide.common.privacy.filter import Cap, Charge, filter_epsilon, if_broken
from confide.common.privacy.filter import spent as spent_of
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.secure.sharing import Sharing
from confide.common.verify import sharing as module

# Three of four members bear the noise of PLAN.
LEAST = math.ceil((4 * 4**19 + 16) / 3)
SHARING = {"min_members": 4, "max_colluding": 1, "grid_bits": 19, "share_variance": LEAST}
FAINT = {"min_members": 10**4, "max_colluding": 0, "grid_bits": 19, "share_variance": 70_000}
SHARED_PLAN: Row = {**PLAN, "sharing": SHARING}
BOTH = {**CAP, "max_epsilon_if_broken": 9.0}
SECOND = ORDER - 4


def release_row(reserve: int, **changes: Any) -> Row:
    row = {"kind": "release", "reserve": reserve, "statement_sha256": "d" * 64, "members": 4, "sha256": "e" * 64}
    return {**row, "bytes": 4000, **changes}


def rows() -> list[Row]:
    """Two rounds of a study that shares noise, and a local study beside it."""
    return [
        dataset_row(order_if_broken=SECOND, **BOTH),
        open_row("shared", SHARED_PLAN, **BOTH),  # row 2
        reserve_row("shared", 1, **BOTH),
        seal_row(3),
        release_row(3),  # row 5
        {"kind": "ack", "reserve": 3},
        reserve_row("shared", 2, **BOTH),
        reserve_row("shared", 2, attempt=2, **BOTH),  # row 8
        seal_row(8),
        release_row(8),
        open_row("local", **BOTH),  # row 11
        reserve_row("local", 1, **BOTH),
    ]


def _charges() -> list[Charge]:
    shared = PrivacyPlan(**{**PLAN, "sharing": Sharing(**SHARING)})
    return [Charge(shared, 3), Charge(PrivacyPlan(**PLAN), 1)]


PROMISED, BROKEN = filter_epsilon(_charges(), 1e-5, ORDER), filter_epsilon(if_broken(_charges()), 1e-5, SECOND)


def claim(**changes: Any) -> Row:
    second = {"epsilon_spent_if_broken": BROKEN, "epsilon_cap_if_broken": 9.0}
    return first_line(PROMISED, **{**second, **changes})


def test_both_accounts_of_a_whole_ledger_agree(export: Callable[..., Path]) -> None:
    assert BROKEN > PROMISED
    code, output, errors = run_verify(export(rows(), claim()))
    assert (code, errors) == (0, ""), output
    assert f"if shared noise is broken: epsilon {BROKEN:.3f}"[:-1] in output


def _set(number: int, /, **changes: Any) -> Callable[[list[Row]], object]:
    return lambda bodies: bodies[number - 1].update(changes)


def _sharing(**changes: Any) -> Callable[[list[Row]], object]:
    return lambda bodies: bodies[1]["plan"]["sharing"].update(changes)


def _insert(number: int, *more: Row) -> Callable[[list[Row]], object]:
    def insert(bodies: list[Row]) -> None:
        bodies[number - 1 : number - 1] = copy.deepcopy(list(more))

    return insert


def _lower_the_second_cap(bodies: list[Row]) -> None:
    """Before a release, which is the only row that keeps it."""
    bodies[9:] = [{"kind": "policy", **CAP, "max_epsilon_if_broken": 0.5}, bodies[9]]


LIES: dict[str, tuple[Callable[[list[Row]], object], str]] = {
    "a plan that shares nothing by name": (_set(2, plan={**PLAN, "sharing": None}), "sharing: None must be an object"),
    "sharing without its grid": (lambda b: b[1]["plan"]["sharing"].pop("grid_bits"), "grid_bits is missing"),
    "an unknown field of sharing": (_sharing(refunds=1), "'refunds' is unknown"),
    "a variance that is one too low": (_sharing(share_variance=LEAST - 1), "more than 3 shares add"),
    "more colluding than the noise allows": (_sharing(max_colluding=2), "more than 2 shares add"),
    "only one that is honest": (_sharing(max_colluding=3), "1 members are honest"),
    "a grid that is too fine": (_sharing(grid_bits=20), "grid_bits = 20"),
    "a sum with less noise than one share": (_sharing(share_variance=5 * 4**19), "less than one share adds"),
    "a share with next to no noise": (_set(2, plan={**PLAN, "noise_multiplier": 0.05, "sharing": FAINT}), "0.0005"),
    "a second cap that is null": (_set(2, max_epsilon_if_broken=None), "max_epsilon_if_broken = None"),
    "a second cap that was not in force": (_set(3, max_epsilon_if_broken=10.0), "is in force"),
    "a second cap that is left out": (lambda b: b[2].pop("max_epsilon_if_broken"), "is in force"),
    "a second order that is useless": (_set(1, order_if_broken=1), "order_if_broken = 1"),
    "a release of no row": (_set(5, reserve=99), "row 99 is no sealed reserve"),
    "a release before its seal": (lambda b: b.insert(3, b.pop(4)), "row 3 is no sealed reserve"),
    "a second release of a reserve": (_insert(6, release_row(3)), "a share of round 1 of 'shared' left before"),
    "a second release of a round": (_set(8, round=1), "a share of round 1 of 'shared' left before"),
    "a release with too few members": (_set(5, members=3), "3 members are fewer than its plan's 4"),
    "a release of what is not shared": (
        lambda b: b.extend([seal_row(12), release_row(12)]),
        "the institutions of study 'local' share no noise",
    ),
    "a release after the close": (_insert(10, {"kind": "close", "study": "shared"}), "the study is closed"),
    "a release without its statement": (lambda b: b[4].pop("statement_sha256"), "statement_sha256 is missing"),
    "a release under a cap that was lowered": (
        _lower_the_second_cap,
        "if shared noise is broken, the cap is (4.0, 1e-05, 0.5)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_shared_noise_is_found(name: str, export: Callable[..., Path]) -> None:
    lie, words = LIES[name]
    bodies = copy.deepcopy(rows())
    lie(bodies)
    code, output, errors = run_verify(export(bodies, claim()))
    assert (code, errors) == (1, ""), output
    assert words in output


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilon_spent_if_broken": BROKEN - 1e-3}, "epsilon_spent_if_broken"),
        ({"epsilon_cap_if_broken": 20.0}, "not those in force"),
    ],
)
def test_a_false_claim_about_the_second_account_is_found(changes: Row, words: str, export: Callable[..., Path]) -> None:
    code, output, _ = run_verify(export(rows(), claim(**changes)))
    assert code == 1
    assert words in output


def test_a_claim_without_the_second_account_is_found(export: Callable[..., Path]) -> None:
    header = claim()
    del header["claim"]["epsilon_spent_if_broken"]
    code, output, _ = run_verify(export(rows(), header))
    assert code == 1
    assert "epsilon_spent_if_broken is missing" in output


def _capped(second: float | None) -> tuple[list[Row], Row]:
    cap = CAP if second is None else {**CAP, "max_epsilon_if_broken": second}
    header = first_line(0.0, epsilon_spent_if_broken=0.0, **({"epsilon_cap_if_broken": second} if second else {}))
    return [dataset_row(**cap), open_row("shared", SHARED_PLAN, **cap)], header


def test_an_allotment_must_fit_the_second_cap_too(export: Callable[..., Path]) -> None:
    [whole] = if_broken([Charge(_charges()[0].plan, 10, 2)])
    alone = spent_of([whole], 1e-5, ORDER)
    for second, code in ((alone + 1e-3, 0), (alone - 1e-3, 1)):
        found, output, _ = run_verify(export(*_capped(second)))
        assert found == code, output
    assert "may be spent if shared noise is broken" in output


def test_an_absent_second_cap_is_the_first(export: Callable[..., Path]) -> None:
    """Twenty members share what one of them alone would have to add: the second account is above 4."""
    many = {**SHARING, "min_members": 21, "share_variance": math.ceil((4 * 4**19 + 16) / 20)}
    bodies, header = _capped(None)
    bodies[1]["plan"] = {**PLAN, "sharing": many}
    code, output, _ = run_verify(export(bodies, header))
    assert code == 1
    assert "may be spent if shared noise is broken, the cap is 4.0" in output
    assert len([line for line in output.splitlines() if line.startswith("PROBLEM")]) == 1, (
        "by the first account it fits"
    )


def test_a_second_account_that_only_pld_admits_lets_nothing_follow(export: Callable[..., Path]) -> None:
    """Whatever `returns` says: it is decided for each account."""
    [whole] = if_broken([Charge(_charges()[0].plan, 10, 2)])
    second = spent_of([whole], 1e-5, ORDER) + 1e-3
    assert filter_epsilon([whole], 1e-5, ORDER) > second
    bodies, header = _capped(second)
    cap = {**CAP, "max_epsilon_if_broken": second}
    bodies.append({"kind": "close", "study": "shared"})
    assert run_verify(export(bodies, header))[0] == 0
    bodies.append(open_row("two", {**PLAN, "num_steps": 1, "validation_releases": 0}, **cap))
    code, output, _ = run_verify(export(bodies, header))
    assert code == 1
    assert "may be spent if shared noise is broken" in output


@pytest.mark.parametrize("variance", [64**2, 64**2 + 1, 10**7 + 3, 2**41, 48413790554])
@pytest.mark.parametrize("bits", [10, 14, 19])
def test_one_share_s_multiplier_is_that_of_the_plan(variance: int, bits: int) -> None:
    sharing = Sharing(4, 1, bits, variance)
    assert float(module._multiplier({"grid_bits": bits, "share_variance": variance})) == sharing.multiplier_of(1)


def test_our_own_ledger_of_shared_noise_is_what_it_recomputes(tmp_path: Path) -> None:
    cap = Cap(8.0, 1e-5, 20.0)
    ledger: Ledger = make_ledger(tmp_path / "ledger.db")
    ledger.open_study("study", SHARED, cap)
    ledger.open_study("other", replace(SHARED, num_steps=3), cap)
    for study in ("study", "other"):
        facts = {"input_sha256": "a" * 64, "run_sha256": "b" * 64, "coins": "os"}
        reservation = ledger.reserve(ask(1, study), (1, 0), cap, facts)
        ledger.seal(reservation, "c" * 64, 10)
        ledger.release(reservation, "e" * 64, 4, "f" * 64, 4000, cap)
    assert kinds(ledger)[-3:] == ["reserve", "seal", "release"]
    account = ledger.account()
    spent = {"epsilon_spent_if_broken": account.epsilon_spent_if_broken(1e-5), "epsilon_cap_if_broken": 20.0}
    header = first_line(account.epsilon_spent(1e-5), epsilon_cap=8.0, **spent)
    written = [{"hash": row_hash, "body": row} for row, row_hash in ledger.rows()]
    (tmp_path / "export.jsonl").write_text(as_lines(header, *written), encoding="utf-8")
    for place in ("ledger.db", "export.jsonl"):
        code, output, _ = run_verify(tmp_path / place)
        assert code == 0, output
