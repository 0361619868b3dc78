"""A ledger's rows, claim and caps: each way to lie is found. The ledgers are written here, row by row."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.verifying import (
    CAP,
    ORDER,
    PLAN,
    WHOLE_SPENT,
    Row,
    charge,
    dataset_row,
    first_line,
    open_row,
    reserve_row,
    run_verify,
    seal_row,
    whole_rows,
)

from confide.common.privacy.filter import composed_epsilon, filter_epsilon
from confide.common.privacy.plan import PrivacyPlan
from confide.common.verify import fields


def test_it_knows_every_field_of_a_plan() -> None:
    assert {name.rstrip("?") for name in fields.PLAN.split()} == set(PrivacyPlan.__dataclass_fields__)
    assert set(PLAN) == set(PrivacyPlan.__dataclass_fields__) - {"sharing"}


def _set(number: int, /, **changes: Any) -> Callable[[list[Row]], object]:
    return lambda bodies: bodies[number - 1].update(changes)


def _plan(**changes: Any) -> Callable[[list[Row]], object]:
    return lambda bodies: bodies[2]["plan"].update(changes)


def _insert(number: int, *rows: Row) -> Callable[[list[Row]], object]:
    def insert(bodies: list[Row]) -> None:
        bodies[number - 1 : number - 1] = copy.deepcopy(list(rows))

    return insert


def _replace(number: int, *rows: Row) -> Callable[[list[Row]], object]:
    def replace(bodies: list[Row]) -> None:
        bodies[number - 1 :] = copy.deepcopy(list(rows))

    return replace


def _without(number: int, name: str) -> Callable[[list[Row]], object]:
    return lambda bodies: bodies[number - 1].pop(name)


BIG = {**PLAN, "noise_multiplier": 0.5}
LIES: dict[str, tuple[Callable[[list[Row]], object], str]] = {
    "a ledger of a simulation": (_set(1, simulated=True), "simulated = true"),
    "noise of a test": (_set(7, coins="test"), "coins = 'test'"),
    "a run without privacy": (_insert(13, {"kind": "infinite", "study": "raw"}), "'raw' ran without privacy: INFINITE"),
    "another dataset": (_set(1, dataset="others"), "names 'others'"),
    "no dataset row": (lambda bodies: bodies.pop(0), "dataset row"),
    "two dataset rows": (_insert(3, dataset_row(max_epsilon=100.0)), "dataset row"),
    "a number that is left out": (_set(5, number=6), "does not follow"),
    "another row before": (_set(5, previous="0" * 64), "does not follow"),
    "a salt that is used again": (_set(5, salt=f"{4:032x}"), "salt was used before"),
    "an unknown kind": (_set(6, kind="refund", steps=3), "kind = 'refund'"),
    "a kind with another type": (_set(6, kind=["ack"]), "kind = ['ack']"),
    "an unknown field": (_set(7, refund=3), "'refund' is unknown"),
    "a missing field": (_without(7, "coins"), "coins is missing"),
    "a missing time": (_set(7, time=None), "time = None"),
    "an unknown field of a plan": (_plan(refunds=3), "'refunds' is unknown"),
    "a missing field of a plan": (lambda bodies: bodies[2]["plan"].pop("head_weight"), "head_weight is missing"),
    "a plan that is none": (_set(3, plan=[]), "[] must be an object"),
    "a plan for another unit": (_plan(unit="group"), "plan.unit = 'group' is not the dataset's"),
    "an unknown unit": (_plan(unit="batch"), "unit = 'batch'"),
    "NaN noise": (_plan(noise_multiplier=math.nan), "noise_multiplier = nan"),
    "infinite noise": (_plan(noise_multiplier=math.inf), "noise_multiplier = inf"),
    "negative sampling": (_plan(sampling_probability=-0.1), "sampling_probability = -0.1"),
    "sampling that is true": (_plan(sampling_probability=True), "sampling_probability = True"),
    "negative steps": (_set(7, steps=-3), "steps = -3"),
    "negative releases": (_set(7, releases=-1), "releases = -1"),
    "half a step": (_set(7, steps=0.5), "steps = 0.5"),
    "a step that is true": (_set(7, steps=True), "steps = True"),
    "more steps than the number of atoms": (_set(7, steps=10**80), "steps = 1000"),
    "an order that is chosen to be useless": (_set(1, order=1), "order = 1"),
    "an order that takes for ever": (_set(1, order=10**9), "order = 1000000000"),
    "a delta of one": (_set(1, max_delta=1.0), "max_delta = 1.0"),
    "a study opened twice": (_insert(4, open_row("one")), "'one' was opened before"),
    "a study opened again after its end": (_insert(13, open_row("one")), "'one' was opened before"),
    "a study without privacy opened again": (
        _insert(13, {"kind": "infinite", "study": "raw"}, open_row("raw")),
        "'raw' was opened before",
    ),
    "more steps than the plan has": (_set(3, steps=11), "more than its plan has"),
    "more releases than the plan has": (_set(3, releases=3), "more than its plan has"),
    "more steps than allotted": (_set(3, steps=8), "more than was allotted"),
    "more releases than allotted": (_set(3, releases=0), "more than was allotted"),
    "a reserve of an unknown study": (_set(7, study="none"), "'none' was never opened"),
    "a reserve before its open": (
        lambda bodies: bodies.insert(2, bodies.pop(3)),
        "'one' was never opened",
    ),
    "a reserve after the close": (_insert(13, reserve_row("one", 3)), "closed"),
    "a reserve after the end": (lambda bodies: bodies.append(reserve_row("two", 3)), "retired"),
    "an open after the end": (lambda bodies: bodies.append(open_row("three")), "retired"),
    "a third attempt": (_insert(9, reserve_row("one", 2, attempt=3)), "attempt = 3"),
    "a second first attempt": (_set(8, attempt=1), "attempt must be 2"),
    "a first second attempt": (_set(7, attempt=2), "attempt must be 1"),
    "a second attempt that comes three times": (_insert(9, reserve_row("one", 2, attempt=2)), "attempt must be 3"),
    "an update that pays nothing": (_set(7, steps=0), "pays nothing"),
    "an update that pays with a release": (_set(7, steps=0, releases=1), "pays nothing"),
    "a validation that pays nothing": (_set(10, releases=0, steps=1), "pays nothing"),
    "a seal of no row": (_insert(12, seal_row(1000)), "row 1000 is no unsealed reserve"),
    "a seal of another kind of row": (_insert(12, seal_row(3)), "row 3 is no unsealed reserve"),
    "a second seal": (_insert(12, seal_row(4)), "row 4 is no unsealed reserve"),
    "a seal before its reserve": (_insert(7, seal_row(8)), "row 8 is no unsealed reserve"),
    "an ack without a seal": (_insert(12, {"kind": "ack", "reserve": 7}), "row 7 is no sealed reserve"),
    "a close of no study": (_insert(12, {"kind": "close", "study": "none"}), "'none' is not open"),
    "a second close": (_insert(13, {"kind": "close", "study": "one"}), "'one' is not open"),
    "a cap that was not in force at a reserve": (_set(15, **CAP), "but (3.0, 1e-05) is in force"),
    "a cap that was not in force at an open": (_set(14, **CAP), "but (3.0, 1e-05) is in force"),
    "a delta that was not in force": (_set(7, max_delta=1e-2), "is in force"),
    "an allotment above the cap": (_replace(3, open_row("one", BIG)), "with its allotment"),
    "steps above a cap that was lowered": (
        _replace(13, {"kind": "policy", "max_epsilon": 0.5, "max_delta": 1e-5}, open_row("two", max_epsilon=0.5)),
        "with its allotment",
    ),
    "a reserve above a cap that was lowered for a while": (
        _replace(
            12,
            {"kind": "policy", "max_epsilon": 0.5, "max_delta": 1e-5},
            reserve_row("one", 3, max_epsilon=0.5),
            {"kind": "policy", **CAP},
        ),
        "is reserved, the cap is (0.5, 1e-05)",
    ),
    "a reserve above a cap with a smaller delta": (
        _replace(
            12,
            {"kind": "policy", "max_epsilon": 1.0, "max_delta": 1e-9},
            reserve_row("one", 3, max_epsilon=1.0, max_delta=1e-9),
        ),
        "is reserved, the cap is (1.0, 1e-09)",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_in_a_row_is_found(name: str, export: Callable[..., Path]) -> None:
    lie, words = LIES[name]
    bodies = whole_rows()
    lie(bodies)
    code, output, errors = run_verify(export(bodies, first_line(None)))
    assert (code, errors) == (1, ""), output
    assert words in output
    assert "FAILS" in output


CLAIMS = {
    "less than was spent": (first_line(round(WHOLE_SPENT - 2e-4, 4)), "is below"),
    "less than was spent, by composed PLD": (
        first_line(composed_epsilon([charge(9, 1), charge(2, 0, noise_multiplier=3.0)], 1e-5)),
        "is below",
    ),
    "another delta": (first_line(WHOLE_SPENT, delta=1e-3), "not those in force"),
    "another cap": (first_line(WHOLE_SPENT, epsilon_cap=9.0), "not those in force"),
    "a cap that was in force before": (first_line(WHOLE_SPENT, epsilon_cap=3.0), "not those in force"),
    "an unknown key": (first_line(WHOLE_SPENT, refunded=1.0), "'refunded' is unknown"),
    "NaN": (first_line(math.nan), "epsilon_spent = nan"),
    "minus infinity": (first_line(-math.inf), "epsilon_spent = -inf"),
    "text": (first_line("3"), "epsilon_spent = '3'"),  # type: ignore[arg-type]
    "true": (first_line(True), "epsilon_spent = True"),
    "no claim": ({"format": "confide-ledger-1", "dataset": "people"}, "claim is missing"),
    "a claim that is none": ({**first_line(1.0), "claim": 3}, "epsilon_spent is missing"),
    "another dataset": ({**first_line(WHOLE_SPENT), "dataset": "others"}, "'others'"),
    "no dataset": ({"format": "confide-ledger-1", "claim": {}}, "dataset is missing"),
    "an unknown key beside it": ({**first_line(WHOLE_SPENT), "note": "audited"}, "'note' is unknown"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_false_claim_is_found(name: str, export: Callable[..., Path]) -> None:
    header, words = CLAIMS[name]
    code, output, errors = run_verify(export(whole_rows(), header))
    assert (code, errors) == (1, "")
    assert words in output


# What two accounts allow


def test_several_studies_must_fit_the_filter(export: Callable[..., Path]) -> None:
    """Two studies within the cap by composed PLD, above it by the filter: plans were chosen one after the other."""
    pair = [charge(10, 2), charge(10, 2)]
    cap = {"max_epsilon": composed_epsilon(pair, 1e-5), "max_delta": 1e-5}
    rows = [dataset_row(**cap), open_row("one", **cap), open_row("two", **cap)]
    header = first_line(None, epsilon_cap=cap["max_epsilon"])
    code, output, _ = run_verify(export(rows, header))
    assert code == 1
    assert "with its allotment" in output
    cap = {"max_epsilon": filter_epsilon(pair, 1e-5, ORDER), "max_delta": 1e-5}
    rows = [dataset_row(**cap), open_row("one", **cap), open_row("two", **cap)]
    assert run_verify(export(rows, first_line(0.0, epsilon_cap=cap["max_epsilon"])))[0] == 0


def _capped_by_pld(*, closed: bool) -> tuple[list[Row], dict[str, float]]:
    """A first study that only PLD admits, two of its steps, and a second one after it."""
    cap = {"max_epsilon": composed_epsilon([charge(10, 2)], 1e-5), "max_delta": 1e-5}
    rows = [dataset_row(**cap), open_row("one", **cap), reserve_row("one", 1, **cap)]
    rows += [{"kind": "close", "study": "one"}] if closed else []
    return [*rows, open_row("two", {**PLAN, "num_steps": 1, "validation_releases": 0}, **cap)], cap


@pytest.mark.parametrize("closed", [False, True])
def test_a_study_that_only_pld_admits_is_the_last(closed: bool, export: Callable[..., Path]) -> None:
    """Whatever its `returns` says: else the next study depends on what this one showed, and no account covers both."""
    rows, cap = _capped_by_pld(closed=closed)
    assert run_verify(export(rows[:-1], first_line(1.0, epsilon_cap=cap["max_epsilon"])))[0] == 0
    code, output, _ = run_verify(export(rows, first_line(None, epsilon_cap=cap["max_epsilon"])))
    assert code == 1
    assert "with its allotment" in output


def test_steps_that_were_returned_are_free_for_others(export: Callable[..., Path]) -> None:
    cap = {"max_epsilon": filter_epsilon([charge(12, 2)], 1e-5, ORDER), "max_delta": 1e-5}
    rows = [dataset_row(**cap), open_row("one", **cap), reserve_row("one", 1, **cap), {"kind": "close", "study": "one"}]
    rows.append(open_row("two", **cap))
    header = first_line(1.0, epsilon_cap=cap["max_epsilon"])
    assert run_verify(export(rows, header))[0] == 0
    for lie in ({"returns": False}, {"kind": "open"}):
        kept = [*rows[:3], *rows[4:]] if "kind" in lie else [rows[0], {**rows[1], **lie}, *rows[2:]]
        code, output, _ = run_verify(export(kept, header))
        assert code == 1
        assert "with its allotment" in output


def test_an_account_that_cannot_be_computed_is_infinite(export: Callable[..., Path]) -> None:
    plan = {**PLAN, "sampling_probability": 1.0, "noise_multiplier": 0.1, "num_steps": 10**6, "validation_releases": 0}
    rows = [dataset_row(max_epsilon=1e6), open_row("one", plan, max_epsilon=1e6)]
    code, output, _ = run_verify(export(rows, first_line(None, epsilon_cap=1e6)))
    assert code == 1
    assert "inf may be spent" in output


# A ledger that was edited by someone who cannot make hashes, or is broken


def _edited(lines: list[str], number: int, old: str, new: str) -> list[str]:
    assert old in lines[number]
    return [line.replace(old, new, 1) if index == number else line for index, line in enumerate(lines)]


EDITS: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "a value": (lambda lines: _edited(lines, 7, '"steps": 3', '"steps": 1'), "hash is not that of its body"),
    "a hash": (lambda lines: _edited(lines, 7, '"hash": "', '"hash": "0'), "hash"),
    "a hash of another type": (lambda lines: [*lines[:7], '{"hash": 1, "body": {}}'], "hash = 1"),
    "a body of another type": (lambda lines: [*lines[:7], '{"hash": 1, "body": "retire"}'], "kind = None"),
    "a row that is gone": (lambda lines: [*lines[:7], *lines[8:]], "does not follow"),
    "a row that comes twice": (lambda lines: [*lines[:8], *lines[7:]], "does not follow"),
    "two rows that changed places": (lambda lines: [*lines[:7], lines[8], lines[7], *lines[9:]], "does not follow"),
    "a key beside hash and body": (
        lambda lines: _edited(lines, 7, '{"hash"', '{"steps": 0, "hash"'),
        "line 8: 'steps' is unknown",
    ),
    "no rows": (lambda lines: lines[:1], "names None"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_found(name: str, export: Callable[..., Path]) -> None:
    edit, words = EDITS[name]
    path = export(whole_rows())
    path.write_text("\n".join(edit(path.read_text(encoding="utf-8").splitlines())), encoding="utf-8")
    code, output, errors = run_verify(path)
    assert (code, errors) == (1, ""), output
    assert words in output
