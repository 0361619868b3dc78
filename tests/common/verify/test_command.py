"""`confide verify`: what is whole agrees, and each way to lie is found. The ledgers are written here, row by row."""

import ast
import contextlib
import copy
import hashlib
import io
import json
import math
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from confide.client.privacy.account import AnswerKey
from confide.client.privacy.database import Database
from confide.client.privacy.ledger import Ledger, Terms
from confide.common.config.run import RunConfig, make_plan
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.filter import Cap, Charge, composed_epsilon, filter_epsilon
from confide.common.privacy.plan import PrivacyPlan
from confide.common.verify import command as module
from confide.common.verify import ledger
from confide.server.results.run_directory import RunDirectory
from confide.server.rounds.roster import Institution

MakeRun = Callable[..., RunConfig]
Row = dict[str, Any]
CAP, ORDER = {"max_epsilon": 4.0, "max_delta": 1e-5}, 12
PLAN: Row = {
    "unit": "record",
    "sampling_probability": 0.1,
    "num_steps": 10,
    "declared_units": 2000,
    "clip_norm": 1.0,
    "clipping": "automatic",
    "noise_multiplier": 2.0,
    "target_delta": 1e-5,
    "head_weight": 1.0,
    "validation_releases": 2,
    "validation_noise_multiplier": 10.0,
}


# A writer of ledgers that shares no code with ours.


def _dataset(**changes: Any) -> Row:
    first = {"kind": "dataset", "dataset": "people", "unit": "record", "max_records_per_group": 1, "order": ORDER}
    return {**first, "simulated": False, **CAP, **changes}


def _open(study: str, plan: Row = PLAN, **changes: Any) -> Row:
    allotted = {"steps": plan["num_steps"], "releases": plan["validation_releases"], "returns": True}
    own = {"kind": "open", "study": study, "plan": dict(plan), "accountant": "dp-accounting 0.6.0"}
    return {**own, **allotted, **CAP, **changes}


def _reserve(study: str, number: int, steps: int = 1, **changes: Any) -> Row:
    row = {"kind": "reserve", "study": study, "lineage": "5" * 32, "round": number, "what": "update", "steps": steps}
    row |= {"releases": 0, "input_sha256": "a" * 64, "run_sha256": "b" * 64, "attempt": 1, "coins": "os"}
    return {**row, **CAP, **changes}


def _validate(study: str, number: int, **changes: Any) -> Row:
    return _reserve(study, number, steps=0, what="validation", releases=1, **changes)


def _seal(number: int) -> Row:
    return {"kind": "seal", "reserve": number, "sha256": "c" * 64, "bytes": 1000}


def _chained(bodies: list[Row]) -> list[Row]:
    """Rows with numbers, salts and hashes: what a liar who owns the ledger makes of any rows."""
    rows, previous = [], "0" * 64
    for number, body in enumerate(bodies, start=1):
        common = {"number": number, "previous": previous, "salt": f"{number:032x}", "time": 1_800_000_000 + number}
        row = {**common, **body}
        text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        previous = hashlib.sha256(text.encode()).hexdigest()
        rows.append({"hash": previous, "body": row})
    return rows


def _header(spent: float | None, **changes: Any) -> Row:
    claim = {"epsilon_spent": spent, "epsilon_cap": CAP["max_epsilon"], "delta": CAP["max_delta"], **changes}
    return {"format": "confide-ledger-1", "dataset": "people", "claim": claim}


def _lines(*lines: Row) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def _whole() -> list[Row]:
    """All that may happen: a retry, validation, an approval, a lowered and a raised cap, two studies, an end."""
    low = {**CAP, "max_epsilon": 3.0}
    return [
        _dataset(),  # row 1
        {"kind": "approve", "study": "one", "run_sha256": "b" * 64},
        _open("one"),
        _reserve("one", 1, steps=3),
        _seal(4),
        {"kind": "ack", "reserve": 4},
        _reserve("one", 2, steps=3),  # killed; row 7
        _reserve("one", 2, steps=3, attempt=2),
        _seal(8),
        _validate("one", 2),
        _seal(10),
        {"kind": "close", "study": "one"},
        {"kind": "policy", **low},
        _open("two", {**PLAN, "noise_multiplier": 3.0}, **low),
        _reserve("two", 1, **low),
        {"kind": "policy", **CAP},
        _reserve("two", 2),
        _seal(17),
        {"kind": "retire"},
    ]


def _charge(steps: int, releases: int, **changes: Any) -> Charge:
    return Charge(PrivacyPlan(**{**PLAN, **changes}), steps, releases)


WHOLE_SPENT = filter_epsilon([_charge(9, 1), _charge(2, 0, noise_multiplier=3.0)], 1e-5, ORDER)
SINGLE_SPENT = composed_epsilon([_charge(9, 1)], 1e-5)


def _verify(place: Path, *, as_json: bool = False) -> tuple[int, str, str]:
    output, errors, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            module.verify(place, as_json)
        except typer.Exit as stopped:
            code = stopped.exit_code
    return code, output.getvalue(), errors.getvalue()


def _unreadable(result: tuple[int, str, str]) -> None:
    code, output, errors = result
    assert (code, output) == (2, "")
    assert errors.startswith("confide: error: ")
    assert len(errors.splitlines()) == 1


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    def write(bodies: list[Row], header: Row | None = None) -> Path:
        path = tmp_path / "ledger.jsonl"
        path.write_text(_lines(header or _header(WHOLE_SPENT), *_chained(bodies)), encoding="utf-8")
        return path

    return write


# The verifier is independent


@pytest.mark.parametrize("name", ["command", "epsilon", "ledger"])
def test_it_imports_nothing_of_ours(name: str) -> None:
    path = Path(module.__file__).with_name(f"{name}.py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not (isinstance(node, ast.Name) and node.id in ("__import__", "eval", "exec"))
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module))
    found -= {"confide.common.verify.epsilon", "confide.common.verify.ledger"} if name == "command" else set()
    allowed = (set(sys.stdlib_module_names) - {"importlib", "runpy"}) | {"typer", "dp_accounting", "numpy"}
    assert {imported.partition(".")[0] for imported in found} <= allowed


def test_it_knows_every_field_of_a_plan() -> None:
    assert set(ledger.PLAN.split()) == set(PrivacyPlan.__dataclass_fields__) == set(PLAN)


# A ledger that is whole


def test_a_whole_ledger_agrees(export: Callable[..., Path]) -> None:
    code, output, _ = _verify(export(_whole()))
    assert code == 0, output
    assert "'people': epsilon" in output
    assert "agrees" in output
    assert "by the filter at order 12" in output
    assert "composed PLD" in output
    for words in ("noise was really drawn", "unmodified", "withheld", "several datasets"):
        assert words in output


def test_json_says_the_same(export: Callable[..., Path]) -> None:
    code, output, _ = _verify(export(_whole()), as_json=True)
    content = json.loads(output)
    assert code == 0
    assert (content["ok"], content["kind"], content["problems"]) == (True, "ledger", [])
    [item] = content["checked"]
    assert WHOLE_SPENT - 1e-4 <= item["epsilon"] <= WHOLE_SPENT == item["claimed"]
    assert len(content["cannot_show"]) == 4
    code, output, _ = _verify(export(_whole(), _header(WHOLE_SPENT - 2e-4)), as_json=True)
    assert (code, json.loads(output)["ok"]) == (1, False)


def test_one_study_is_counted_by_pld(export: Callable[..., Path]) -> None:
    bodies = _whole()[:12]
    assert _verify(export(bodies, _header(SINGLE_SPENT)))[0] == 0
    assert filter_epsilon([_charge(9, 1)], 1e-5, ORDER) > SINGLE_SPENT
    code, output, _ = _verify(export(bodies, _header(SINGLE_SPENT - 2e-4)))
    assert code == 1
    assert "is below" in output


def test_a_study_that_spent_nothing_is_no_other_study(export: Callable[..., Path]) -> None:
    """Nothing of it was seen when the next plan was chosen, so what spent is still counted by PLD alone."""
    bodies = _whole()[:12]
    assert _verify(export([*bodies, _open("two")], _header(SINGLE_SPENT)))[0] == 0
    cap = {"max_epsilon": composed_epsilon([_charge(10, 2)], 1e-5), "max_delta": 1e-5}
    rows = [_dataset(**cap), _open("none", {**PLAN, "num_steps": 1}, **cap), {"kind": "close", "study": "none"}]
    claim = _header(0.0, epsilon_cap=cap["max_epsilon"])
    assert _verify(export([*rows, _open("one", **cap)], claim))[0] == 0
    code, output, _ = _verify(export([*rows[:2], _open("one", **cap)], claim))
    assert code == 1
    assert "with its allotment" in output, "while it is open it may still spend"


def test_a_claim_of_more_or_of_infinite_is_safe(export: Callable[..., Path]) -> None:
    assert _verify(export(_whole(), _header(WHOLE_SPENT + 1)))[0] == 0
    code, output, _ = _verify(export(_whole(), _header(None)), as_json=True)
    assert (code, json.loads(output)["checked"][0]["claimed"]) == (0, "Infinity")


def test_nothing_reserved_is_nothing_spent(export: Callable[..., Path]) -> None:
    assert _verify(export(_whole()[:3], _header(0.0)))[0] == 0
    assert _verify(export(_whole()[:1], _header(0)))[0] == 0


def test_names_cannot_write_to_the_terminal(export: Callable[..., Path]) -> None:
    bodies = _whole()
    for body in bodies:
        if body.get("study") == "one":
            body["study"] = "\x1b[2J\ud800 zürich"
    code, output, _ = _verify(export(bodies))
    assert code == 0
    assert "\x1b" not in output
    assert "zürich" in output


# A ledger that lies, by someone who makes all its hashes anew


def _no_cap(**changes: Any) -> Row:
    return {**CAP, "max_epsilon": 1000.0, **changes}


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
    "two dataset rows": (_insert(3, _dataset(max_epsilon=100.0)), "dataset row"),
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
    "a study opened twice": (_insert(4, _open("one")), "'one' was opened before"),
    "a study opened again after its end": (_insert(13, _open("one")), "'one' was opened before"),
    "a study without privacy opened again": (
        _insert(13, {"kind": "infinite", "study": "raw"}, _open("raw")),
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
    "a reserve after the close": (_insert(13, _reserve("one", 3)), "closed"),
    "a reserve after the end": (lambda bodies: bodies.append(_reserve("two", 3)), "retired"),
    "an open after the end": (lambda bodies: bodies.append(_open("three")), "retired"),
    "a third attempt": (_insert(9, _reserve("one", 2, attempt=3)), "attempt = 3"),
    "a second first attempt": (_set(8, attempt=1), "attempt must be 2"),
    "a first second attempt": (_set(7, attempt=2), "attempt must be 1"),
    "a second attempt that comes three times": (_insert(9, _reserve("one", 2, attempt=2)), "attempt must be 3"),
    "an update that pays nothing": (_set(7, steps=0), "pays nothing"),
    "an update that pays with a release": (_set(7, steps=0, releases=1), "pays nothing"),
    "a validation that pays nothing": (_set(10, releases=0, steps=1), "pays nothing"),
    "a seal of no row": (_insert(12, _seal(1000)), "row 1000 is no unsealed reserve"),
    "a seal of another kind of row": (_insert(12, _seal(3)), "row 3 is no unsealed reserve"),
    "a second seal": (_insert(12, _seal(4)), "row 4 is no unsealed reserve"),
    "a seal before its reserve": (_insert(7, _seal(8)), "row 8 is no unsealed reserve"),
    "an ack without a seal": (_insert(12, {"kind": "ack", "reserve": 7}), "row 7 is no sealed reserve"),
    "a close of no study": (_insert(12, {"kind": "close", "study": "none"}), "'none' is not open"),
    "a second close": (_insert(13, {"kind": "close", "study": "one"}), "'one' is not open"),
    "a cap that was not in force at a reserve": (_set(15, **CAP), "but (3.0, 1e-05) is in force"),
    "a cap that was not in force at an open": (_set(14, **CAP), "but (3.0, 1e-05) is in force"),
    "a delta that was not in force": (_set(7, max_delta=1e-2), "is in force"),
    "an allotment above the cap": (_replace(3, _open("one", BIG)), "with its allotment"),
    "steps above a cap that was lowered": (
        _replace(13, {"kind": "policy", "max_epsilon": 0.5, "max_delta": 1e-5}, _open("two", max_epsilon=0.5)),
        "with its allotment",
    ),
    "a reserve above a cap that was lowered for a while": (
        _replace(
            12,
            {"kind": "policy", "max_epsilon": 0.5, "max_delta": 1e-5},
            _reserve("one", 3, max_epsilon=0.5),
            {"kind": "policy", **CAP},
        ),
        "is reserved, the cap is (0.5, 1e-05)",
    ),
    "a reserve above a cap with a smaller delta": (
        _replace(
            12,
            {"kind": "policy", "max_epsilon": 1.0, "max_delta": 1e-9},
            _reserve("one", 3, max_epsilon=1.0, max_delta=1e-9),
        ),
        "is reserved, the cap is (1.0, 1e-09)",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_in_a_row_is_found(name: str, export: Callable[..., Path]) -> None:
    lie, words = LIES[name]
    bodies = _whole()
    lie(bodies)
    code, output, errors = _verify(export(bodies, _header(None)))
    assert (code, errors) == (1, ""), output
    assert words in output
    assert "FAILS" in output


CLAIMS = {
    "less than was spent": (_header(round(WHOLE_SPENT - 2e-4, 4)), "is below"),
    "less than was spent, by composed PLD": (
        _header(composed_epsilon([_charge(9, 1), _charge(2, 0, noise_multiplier=3.0)], 1e-5)),
        "is below",
    ),
    "another delta": (_header(WHOLE_SPENT, delta=1e-3), "not those in force"),
    "another cap": (_header(WHOLE_SPENT, epsilon_cap=9.0), "not those in force"),
    "a cap that was in force before": (_header(WHOLE_SPENT, epsilon_cap=3.0), "not those in force"),
    "an unknown key": (_header(WHOLE_SPENT, refunded=1.0), "'refunded' is unknown"),
    "NaN": (_header(math.nan), "epsilon_spent = nan"),
    "minus infinity": (_header(-math.inf), "epsilon_spent = -inf"),
    "text": (_header("3"), "epsilon_spent = '3'"),  # type: ignore[arg-type]
    "true": (_header(True), "epsilon_spent = True"),
    "no claim": ({"format": "confide-ledger-1", "dataset": "people"}, "claim is missing"),
    "a claim that is none": ({**_header(1.0), "claim": 3}, "epsilon_spent is missing"),
    "another dataset": ({**_header(WHOLE_SPENT), "dataset": "others"}, "'others'"),
    "no dataset": ({"format": "confide-ledger-1", "claim": {}}, "dataset is missing"),
    "an unknown key beside it": ({**_header(WHOLE_SPENT), "note": "audited"}, "'note' is unknown"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_false_claim_is_found(name: str, export: Callable[..., Path]) -> None:
    header, words = CLAIMS[name]
    code, output, errors = _verify(export(_whole(), header))
    assert (code, errors) == (1, "")
    assert words in output


# What two accounts allow


def test_several_studies_must_fit_the_filter(export: Callable[..., Path]) -> None:
    """Two studies within the cap by composed PLD, above it by the filter: plans were chosen one after the other."""
    pair = [_charge(10, 2), _charge(10, 2)]
    cap = {"max_epsilon": composed_epsilon(pair, 1e-5), "max_delta": 1e-5}
    rows = [_dataset(**cap), _open("one", **cap), _open("two", **cap)]
    header = _header(None, epsilon_cap=cap["max_epsilon"])
    code, output, _ = _verify(export(rows, header))
    assert code == 1
    assert "with its allotment" in output
    cap = {"max_epsilon": filter_epsilon(pair, 1e-5, ORDER), "max_delta": 1e-5}
    rows = [_dataset(**cap), _open("one", **cap), _open("two", **cap)]
    assert _verify(export(rows, _header(0.0, epsilon_cap=cap["max_epsilon"])))[0] == 0


def _capped_by_pld(*, closed: bool) -> tuple[list[Row], dict[str, float]]:
    """A first study that only PLD admits, two of its steps, and a second one after it."""
    cap = {"max_epsilon": composed_epsilon([_charge(10, 2)], 1e-5), "max_delta": 1e-5}
    rows = [_dataset(**cap), _open("one", **cap), _reserve("one", 1, **cap)]
    rows += [{"kind": "close", "study": "one"}] if closed else []
    return [*rows, _open("two", {**PLAN, "num_steps": 1, "validation_releases": 0}, **cap)], cap


@pytest.mark.parametrize("closed", [False, True])
def test_a_study_that_only_pld_admits_is_the_last(closed: bool, export: Callable[..., Path]) -> None:
    """Whatever its `returns` says: else the next study depends on what this one showed, and no account covers both."""
    rows, cap = _capped_by_pld(closed=closed)
    assert _verify(export(rows[:-1], _header(1.0, epsilon_cap=cap["max_epsilon"])))[0] == 0
    code, output, _ = _verify(export(rows, _header(None, epsilon_cap=cap["max_epsilon"])))
    assert code == 1
    assert "with its allotment" in output


def test_steps_that_were_returned_are_free_for_others(export: Callable[..., Path]) -> None:
    cap = {"max_epsilon": filter_epsilon([_charge(12, 2)], 1e-5, ORDER), "max_delta": 1e-5}
    rows = [_dataset(**cap), _open("one", **cap), _reserve("one", 1, **cap), {"kind": "close", "study": "one"}]
    rows.append(_open("two", **cap))
    header = _header(1.0, epsilon_cap=cap["max_epsilon"])
    assert _verify(export(rows, header))[0] == 0
    for lie in ({"returns": False}, {"kind": "open"}):
        kept = [*rows[:3], *rows[4:]] if "kind" in lie else [rows[0], {**rows[1], **lie}, *rows[2:]]
        code, output, _ = _verify(export(kept, header))
        assert code == 1
        assert "with its allotment" in output


def test_an_account_that_cannot_be_computed_is_infinite(export: Callable[..., Path]) -> None:
    plan = {**PLAN, "sampling_probability": 1.0, "noise_multiplier": 0.1, "num_steps": 10**6, "validation_releases": 0}
    rows = [_dataset(max_epsilon=1e6), _open("one", plan, max_epsilon=1e6)]
    code, output, _ = _verify(export(rows, _header(None, epsilon_cap=1e6)))
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
    path = export(_whole())
    path.write_text("\n".join(edit(path.read_text(encoding="utf-8").splitlines())), encoding="utf-8")
    code, output, errors = _verify(path)
    assert (code, errors) == (1, ""), output
    assert words in output


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda content: b"",
    "half a line": lambda content: content[:-9],
    "an empty line": lambda content: content + b"\n",
    "a list": lambda content: content + b"[]\n",
    "a key twice": lambda content: content.replace(b'"steps": 3', b'"steps": 3, "steps": 1'),
    "not UTF-8": lambda content: content.replace(b"people", b"peo\xffple"),
    "too many digits": lambda content: content.replace(b'"steps": 3', b'"steps": ' + b"9" * 5000),
    "too deep": lambda content: content + b"[" * 100_000,
    "another format": lambda content: content.replace(b"confide-ledger-1", b"confide-ledger-2"),
    "a number": lambda content: b"1",
    "a database that is cut": lambda content: b"SQLite format 3\0" + content[:200],
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_one_line(name: str, export: Callable[..., Path]) -> None:
    path = export(_whole())
    path.write_bytes(BROKEN[name](path.read_bytes()))
    _unreadable(_verify(path))


def test_places_that_are_nothing_are_one_line(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none", Path("/dev/zero"), Path("/dev/null"), tmp_path / "a\udcff\nb"):
        _unreadable(_verify(place))


# ledger.db


def _write_database(path: Path, chains: dict[str, list[Row]]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE rows(dataset TEXT, number INTEGER, hash TEXT, body TEXT)")
        for dataset, rows in chains.items():
            values = [(dataset, row["body"]["number"], row["hash"], json.dumps(row["body"])) for row in rows]
            database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", reversed(values))


def test_a_database_has_one_chain_for_each_dataset(tmp_path: Path) -> None:
    path = tmp_path / "a ?#% ledger.db"
    others = _chained([_dataset(dataset="others"), _open("one"), _reserve("one", 1)])
    _write_database(path, {"people": _chained(_whole()), "others": others})
    code, output, _ = _verify(path, as_json=True)
    content = json.loads(output)
    assert code == 0, output
    assert [(item["name"], item["claimed"]) for item in content["checked"]] == [("others", None), ("people", None)]
    assert content["checked"][1]["epsilon"] == pytest.approx(WHOLE_SPENT, abs=1e-4)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        query = "UPDATE rows SET body = replace(body, '\"round\": 1', '\"round\": 2') WHERE dataset = 'others'"
        database.execute(query)
    code, output, _ = _verify(path)
    assert code == 1
    assert "'others': row 3: its hash is not that of its body" in output


def test_other_databases_are_one_line(tmp_path: Path) -> None:
    for number, table in enumerate(("CREATE TABLE others(a)", "CREATE TABLE rows(a)", "")):
        path = tmp_path / f"{number}.db"
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute(table or "CREATE TABLE rows(dataset, number, hash, body)")
            if not table:
                database.execute("INSERT INTO rows VALUES (NULL, 'x', 1.5, 7)")
        _unreadable(_verify(path))
    _write_database(tmp_path / "empty.db", {})
    _unreadable(_verify(tmp_path / "empty.db"))


def test_our_own_ledger_is_what_it_recomputes(tmp_path: Path) -> None:
    """The format as the client writes it, while the client is running."""
    ledger = Ledger(Database(tmp_path / "ledger.db"), Terms("people", "record", 1), lambda row, row_hash: None)
    cap = Cap(4.0, 1e-5)
    for name, noise_multiplier in (("one", 2.0), ("two", 3.0)):
        ledger.open_study(name, PrivacyPlan(**{**PLAN, "noise_multiplier": noise_multiplier}), cap)
        facts = {"input_sha256": "a" * 64, "run_sha256": "b" * 64, "coins": "os"}
        reservation = ledger.reserve(AnswerKey(name, "5" * 32, "update", 1), (2, 0), cap, facts)
        ledger.seal(reservation, "c" * 64, 10)
        ledger.acknowledge(reservation)
        ledger.reserve(AnswerKey(name, "5" * 32, "validation", 1), (0, 1), cap, facts)
        ledger.close(name)
        code, output, _ = _verify(tmp_path / "ledger.db", as_json=True)
        spent = ledger.account().epsilon_spent(1e-5)
        assert code == 0, output
        assert spent - 1e-4 <= json.loads(output)["checked"][0]["epsilon"] <= spent
        header = _header(spent)
        rows = [{"hash": row_hash, "body": row} for row, row_hash in ledger.rows()]
        (tmp_path / "export.jsonl").write_text(_lines(header, *rows), encoding="utf-8")
        assert _verify(tmp_path / "export.jsonl")[0] == 0


# A run directory


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun) -> Path:
    run = make_run(
        privacy={"noise_multiplier": 2.0},
        federation={"num_rounds": 4},
        local={"steps": 2},
        evaluation={"validation_every": 2},
    )
    institutions = [
        Institution("st-mary", 500, num_steps=8, num_releases=2),
        Institution("late", 90, num_steps=4, num_releases=1),
    ]
    directory = RunDirectory(tmp_path_factory.mktemp("run"), run)
    for number in range(1, 5):
        names = ["st-mary", "late"] if number > 2 else ["st-mary"]
        directory.record(_asked("update", number, *names))
        if number % 2 == 0:
            directory.record(_asked("validation", number, *names))
        for name in names:
            directory.record({"event": "accepted", "round": number, "institution": name})
        directory.record({"event": "accepted", "round": number, "institution": "st-mary"})  # sent again: no new steps
        steps = {"st-mary": 2 * number, "late": max(2 * number - 4, 0)}
        releases = {"st-mary": number // 2, "late": number // 4}
        directory.record({"event": "round", "round": number, "num_steps": steps, "num_releases": releases})
    directory.write_privacy("completed", run, institutions, simulated=False)
    plan = make_plan(run, 500)
    assert isinstance(plan, PrivacyPlan)
    assert plan.validation_releases == 2
    return directory.path


@pytest.fixture
def folder(run_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


def _edit(folder: Path, edit: Callable[[Row], object]) -> None:
    content = json.loads((folder / "privacy.json").read_text(encoding="utf-8"))
    edit(content)
    (folder / "privacy.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_run_directory_agrees(folder: Path) -> None:
    code, output, _ = _verify(folder)
    assert code == 0, output
    assert "'st-mary': epsilon" in output
    assert "8 of 8 steps, 2 of 2 validation releases" in output
    assert "status: 'completed'" in output
    assert "noise was really drawn" in output
    code, output, _ = _verify(folder, as_json=True)
    content = json.loads(output)
    assert (code, content["ok"], content["kind"]) == (0, True, "run")
    rows = {item["name"]: item for item in content["checked"]}
    plan = PrivacyPlan(**json.loads((folder / "privacy.json").read_text(encoding="utf-8"))["institutions"][0]["plan"])
    assert rows["st-mary"]["claimed"] == epsilon(plan) >= rows["st-mary"]["epsilon"] > epsilon(plan) - 1e-4
    assert rows["late"]["claimed"] == epsilon(plan, 4, 1)


def test_a_run_that_stopped_agrees_and_says_so(folder: Path) -> None:
    _edit(folder, lambda content: content.update(status="stopped", simulated=True))
    code, output, _ = _verify(folder)
    assert code == 0
    assert "status: 'stopped'" in output
    assert "simulated: True" in output


def test_rows_from_before_validation_agree(folder: Path) -> None:
    for row, name in ((0, "num_releases"), (1, "num_releases")):
        _edit(folder, lambda content, row=row, name=name: content["institutions"][row].pop(name))  # type: ignore[misc]
    for name in ("validation_releases", "validation_noise_multiplier"):
        for row in (0, 1):
            _edit(folder, lambda content, row=row, name=name: content["institutions"][row]["plan"].pop(name))  # type: ignore[misc]
    (folder / "metrics.jsonl").unlink()
    lock = (folder / "run.lock.toml").read_text(encoding="utf-8")
    (folder / "run.lock.toml").write_text(lock.replace("validation_every", "before"), encoding="utf-8")
    events = (folder / "events.jsonl").read_text(encoding="utf-8").replace('"num_releases"', '"before"').splitlines()
    (folder / "events.jsonl").write_text("\n".join(line for line in events if '"validation"' not in line), "utf-8")
    assert _verify(folder)[0] == 0


def _first(**changes: Any) -> Callable[[Row], object]:
    return lambda content: content["institutions"][0].update(changes)


def _first_plan(**changes: Any) -> Callable[[Row], object]:
    return lambda content: content["institutions"][0]["plan"].update(changes)


def _group(content: Row) -> None:
    content["institutions"][0]["unit"] = content["institutions"][0]["plan"]["unit"] = "group"


FALSE_RUNS: dict[str, tuple[Callable[[Row], object], str]] = {
    "less epsilon": (
        lambda content: _first(epsilon=content["institutions"][0]["epsilon"] - 2e-4)(content),
        "epsilon =",
    ),
    "no epsilon": (_first(epsilon=0.0), "epsilon = 0.0 is below"),
    "less epsilon of the whole plan": (_first(epsilon_of_the_whole_plan=0.1), "epsilon_of_the_whole_plan = 0.1"),
    "fewer steps": (_first(num_steps=7), "num_steps = 7, but its events show 8"),
    "fewer releases": (_first(num_releases=1), "num_releases = 1, but its events show 2"),
    "more steps than the plan": (_first(num_steps=9), "above what the plan has"),
    "more releases than the plan": (_first(num_releases=3), "above what the plan has"),
    "negative steps": (_first(num_steps=-1), "num_steps = -1"),
    "a larger delta": (_first(delta=1e-2), "delta is not the plan's"),
    "a larger delta everywhere": (
        lambda content: (_first(delta=1e-2)(content), _first_plan(target_delta=1e-2)(content)),
        "target_delta = 0.01 is not that of run.lock.toml",
    ),
    "more noise": (_first_plan(noise_multiplier=4.0), "noise_multiplier = 4.0 is not that of run.lock.toml"),
    "more noise on counts": (_first_plan(validation_noise_multiplier=40.0), "is not that of run.lock.toml"),
    "less sampling": (_first_plan(sampling_probability=0.01), "is not that of run.lock.toml"),
    "more steps in the plan": (_first_plan(num_steps=9), "num_steps = 9 is not that of run.lock.toml"),
    "another unit": (_first(unit="group"), "unit or delta is not the plan's"),
    "mixed units": (_group, "mixed units"),
    "an unknown key of a plan": (_first_plan(shuffled=True), "'shuffled' is unknown"),
    "a missing key of a plan": (
        lambda content: content["institutions"][0]["plan"].pop("noise_multiplier"),
        "noise_multiplier is missing",
    ),
    "no privacy": (_first(no_privacy=True), "INFINITE"),
    "infinite epsilon": (_first(epsilon=math.inf), "epsilon = inf"),
    "NaN epsilon": (_first(epsilon=math.nan), "epsilon = nan"),
    "epsilon as text": (_first(epsilon="1.0"), "epsilon = '1.0'"),
    "no plan": (_first(plan=None), "plan: None must be an object"),
    "a row that is none": (lambda content: content["institutions"].append(3), "is missing"),
    "a row that is gone": (lambda content: content["institutions"].pop(), "'late' took part and has no row"),
    "another name": (_first(institution="st-jude"), "'st-mary' took part and has no row"),
    "a row twice": (lambda content: content["institutions"].append(content["institutions"][0]), "several rows"),
    "no rows": (lambda content: content.update(institutions=[]), "'st-mary' took part and has no row"),
    "fewer releases in the plan": (_first_plan(validation_releases=1), "releases = 1 is not that of run.lock.toml"),
    "rows that are none": (lambda content: content.update(institutions="all"), "nothing is claimed"),
    "no list of rows": (lambda content: content.pop("institutions"), "institutions is missing"),
    "no status": (lambda content: content.pop("status"), "status is missing"),
    "another adjacency": (lambda content: content.update(adjacency="change one unit"), "adjacency = 'change one unit'"),
}


@pytest.mark.parametrize("name", FALSE_RUNS)
def test_a_false_privacy_json_is_found(name: str, folder: Path) -> None:
    edit, words = FALSE_RUNS[name]
    _edit(folder, edit)
    code, output, errors = _verify(folder)
    assert (code, errors) == (1, ""), output
    assert words in output


def _larger_delta(content: Row) -> None:
    _first(delta=1e-2)(content), _first_plan(target_delta=1e-2)(content)


def _all_in_groups(content: Row) -> None:
    for row in content["institutions"]:
        row["unit"] = row["plan"]["unit"] = "group"


UNLOCKED: dict[str, Callable[[Row], object]] = {
    "unit": _all_in_groups,
    "sampling_probability": _first_plan(sampling_probability=0.01),
    "noise_multiplier": _first_plan(noise_multiplier=4.0),
    "target_delta": _larger_delta,
    "clip_norm": _first_plan(clip_norm=0.5),
    "clipping": _first_plan(clipping="abadi"),
    "head_weight": _first_plan(head_weight=2.0),
    "validation_noise_multiplier": _first_plan(validation_noise_multiplier=40.0),
}


@pytest.mark.parametrize("name", UNLOCKED)
def test_a_figure_is_not_taken_on_trust_where_the_lock_lacks_it(name: str, folder: Path) -> None:
    lock = (folder / "run.lock.toml").read_text(encoding="utf-8").splitlines(keepends=True)
    left = [line for line in lock if not line.startswith(f"{name} = ")]
    assert len(left) == len(lock) - 1
    _edit(folder, UNLOCKED[name])
    assert _verify(folder)[0] == 1, "it is found while the lock has it"
    (folder / "run.lock.toml").write_text("".join(left), encoding="utf-8")
    result = _verify(folder)
    _unreadable(result)
    assert f"run.lock.toml: {name} is missing" in result[2]


def _asked(what: str, number: int, *names: str) -> Row:
    return {"event": "asked_again", "what": what, "round": number, "institutions": names}


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("metrics.jsonl", {"event": "round", "num_steps": {"st-mary": 10}}, "events show 10"),
        ("metrics.jsonl", {"event": "round", "num_steps": {"st-mary": "many"}}, "events show 1000000000"),
        ("metrics.jsonl", {"event": "round", "num_releases": {"late": 2}}, "num_releases = 1, but its events show 2"),
        ("events.jsonl", {"event": "accepted", "round": 5, "institution": "st-mary"}, "num_steps = 8, but its events"),
        ("events.jsonl", {"event": "accepted", "round": 5, "institution": "st-jude"}, "'st-jude' took part"),
        ("events.jsonl", _asked("update", 1, "late"), "num_steps = 4, but its events show 6"),
        ("events.jsonl", _asked("validation", 2, "st-mary", "late"), "num_releases = 1, but its events show 2"),
        ("events.jsonl", _asked("update", 1, "st-jude"), "'st-jude' took part"),
        ("events.jsonl", _asked("update", 3, "late"), "num_steps = 4, but its events show 6"),
        ("events.jsonl", _asked("validation", 4, "late"), "num_releases = 1, but its events show 2"),
    ],
)
def test_the_run_s_own_events_are_compared(name: str, line: Row, words: str, folder: Path) -> None:
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    code, output, _ = _verify(folder)
    assert code == 1
    assert words in output


def _add(folder: Path, *lines: Row) -> None:
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def test_of_a_round_one_retry_is_charged_and_of_a_run_its_plan(folder: Path) -> None:
    """Asked four times, as often as a server may; who had reached the end of its plan has no more to give."""
    _add(folder, *[_asked("update", 3, "late", "st-mary")] * 3, *[_asked("validation", 4, "late", "st-mary")] * 3)
    _edit(folder, lambda content: content["institutions"][1].update(num_steps=6, num_releases=2, epsilon=99.0))
    code, output, _ = _verify(folder)
    assert code == 0, output


def test_a_run_that_nobody_accepted_claims_nothing_and_agrees(folder: Path) -> None:
    _edit(folder, lambda content: content.update(institutions=[], status="stopped"))
    (folder / "metrics.jsonl").unlink()
    (folder / "events.jsonl").write_text('{"event": "offered", "declared_units": {}}\n', encoding="utf-8")
    code, output, _ = _verify(folder)
    assert code == 0, output
    assert "institutions has no row: nothing is claimed" in output


@pytest.mark.parametrize("name", ["privacy.json", "events.jsonl", "run.lock.toml"])
@pytest.mark.parametrize(
    "content", [None, b"{", b"[1]", b"\xff\xfe", b"steps = 0x" + b"f" * 9000, b"local = 3", b'[local]\nsteps = "x"']
)
def test_a_run_directory_that_cannot_be_read_is_one_line(name: str, content: bytes | None, folder: Path) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    if (name, content) == ("privacy.json", b"[1]"):
        assert _verify(folder)[0] == 1
    else:
        _unreadable(_verify(folder))


# Whatever it is given, it ends, without a traceback

_FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
_ODD_NUMBERS = [0, -1, 2, 10**30, -(10**400), 0.5, -0.0, 1e308, math.nan, math.inf]
_WEIRD = st.sampled_from(
    [*_ODD_NUMBERS, None, True, False, "", "x" * 999, "\ud800\x1b", "record", "os", "0" * 64, [], {}, [[]], {"": {}}]
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [found for key, item in inner for found in _paths(item, (*path, key))]


def _put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    *above, last = path
    for key in above:
        value = value[key]
    changed = value[last] is not new and (value[last] != new or type(value[last]) is not type(new))
    value[last] = new
    return changed


def _ends(result: tuple[int, str, str]) -> int:
    code, output, errors = result
    assert code in (0, 1, 2)
    if code == 2:
        _unreadable(result)
    else:
        assert "Traceback" not in output + errors
    return code


@_FUZZ
@given(st.binary(max_size=300), st.sampled_from([b"", b"SQLite format 3\0", b'{"format": "confide-ledger-1"}\n']))
def test_any_bytes_are_no_ledger(tmp_path: Path, content: bytes, start: bytes) -> None:
    (tmp_path / "file").write_bytes(start + content)
    assert _ends(_verify(tmp_path / "file")) != 0


@_FUZZ
@given(st.data())
def test_any_change_of_a_row_is_found(tmp_path: Path, data: st.DataObject) -> None:
    lines = [_header(WHOLE_SPENT), *_chained(_whole())]
    path = data.draw(st.sampled_from(_paths(lines[1:])))
    changed = _put(lines[1:], path, data.draw(_WEIRD)) if len(path) > 1 else False
    (tmp_path / "file").write_text(_lines(*lines), encoding="utf-8")
    assert _ends(_verify(tmp_path / "file")) != 0 or not changed


@_FUZZ
@given(st.data())
def test_any_change_with_new_hashes_ends(tmp_path: Path, data: st.DataObject) -> None:
    content = [_header(WHOLE_SPENT), *_whole()]
    _put(content, data.draw(st.sampled_from([path for path in _paths(content) if len(path) > 1])), data.draw(_WEIRD))
    (tmp_path / "file").write_text(_lines(content[0], *_chained(content[1:])), encoding="utf-8")
    _ends(_verify(tmp_path / "file"))


@_FUZZ
@given(st.data())
def test_any_change_of_a_run_directory_ends(folder: Path, run_folder: Path, data: st.DataObject) -> None:
    content = json.loads((run_folder / "privacy.json").read_text(encoding="utf-8"))
    _put(content, data.draw(st.sampled_from(_paths(content))), data.draw(_WEIRD))
    (folder / "privacy.json").write_text(json.dumps(content), encoding="utf-8")
    _ends(_verify(folder))


@_FUZZ
@given(st.sampled_from(["privacy.json", "events.jsonl", "metrics.jsonl", "run.lock.toml"]), st.data())
def test_any_damage_of_a_run_directory_ends(folder: Path, run_folder: Path, name: str, data: st.DataObject) -> None:
    content = bytearray((run_folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=20))
    (folder / name).write_bytes(content)
    _ends(_verify(folder))
    shutil.copy(run_folder / name, folder / name)
