"""`confide verify`: what is whole agrees, what cannot be read is one line, and nothing of ours is imported."""

import ast
import contextlib
import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.verifying import (
    ORDER,
    PLAN,
    SINGLE_SPENT,
    WHOLE_SPENT,
    Row,
    as_lines,
    chained,
    charge,
    dataset_row,
    first_line,
    open_row,
    require_unreadable,
    reserve_row,
    run_verify,
    whole_rows,
)

from confide.client.privacy.account import AnswerKey
from confide.client.privacy.database import Database
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.terms import Terms
from confide.common.privacy.filter import Cap, composed_epsilon, filter_epsilon
from confide.common.privacy.plan import PrivacyPlan
from confide.common.verify import command as module

# The verifier is independent


@pytest.mark.parametrize("name", sorted(path.stem for path in Path(module.__file__).parent.glob("*.py")))
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
    own = {f"confide.common.verify.{file.stem}" for file in path.parent.glob("*.py")}
    found -= set() if name in ("epsilon", "fields") else own
    allowed = (set(sys.stdlib_module_names) - {"importlib", "runpy"}) | {"typer", "dp_accounting", "numpy"}
    allowed |= {"cryptography"} if name == "statements" else set()
    assert {imported.partition(".")[0] for imported in found} <= allowed


# A ledger that is whole


def test_a_whole_ledger_agrees(export: Callable[..., Path]) -> None:
    code, output, _ = run_verify(export(whole_rows()))
    assert code == 0, output
    assert "'people': epsilon" in output
    assert "agrees" in output
    assert "by the filter at order 12" in output
    assert "composed PLD" in output
    for words in ("noise was really drawn", "unmodified", "withheld", "approved", "collude", "several datasets"):
        assert words in output


def test_json_says_the_same(export: Callable[..., Path]) -> None:
    code, output, _ = run_verify(export(whole_rows()), as_json=True)
    content = json.loads(output)
    assert code == 0
    assert (content["ok"], content["kind"], content["problems"]) == (True, "ledger", [])
    [item] = content["checked"]
    assert WHOLE_SPENT - 1e-4 <= item["epsilon"] <= WHOLE_SPENT == item["claimed"]
    assert content["cannot_show"] == list(module.CANNOT_SHOW)
    code, output, _ = run_verify(export(whole_rows(), first_line(WHOLE_SPENT - 2e-4)), as_json=True)
    assert (code, json.loads(output)["ok"]) == (1, False)


def test_one_study_is_counted_by_pld(export: Callable[..., Path]) -> None:
    bodies = whole_rows()[:12]
    assert run_verify(export(bodies, first_line(SINGLE_SPENT)))[0] == 0
    assert filter_epsilon([charge(9, 1)], 1e-5, ORDER) > SINGLE_SPENT
    code, output, _ = run_verify(export(bodies, first_line(SINGLE_SPENT - 2e-4)))
    assert code == 1
    assert "is below" in output


def test_a_study_that_spent_nothing_is_no_other_study(export: Callable[..., Path]) -> None:
    """Nothing of it was seen when the next plan was chosen, so what spent is still counted by PLD alone."""
    bodies = whole_rows()[:12]
    assert run_verify(export([*bodies, open_row("two")], first_line(SINGLE_SPENT)))[0] == 0
    cap = {"max_epsilon": composed_epsilon([charge(10, 2)], 1e-5), "max_delta": 1e-5}
    rows = [dataset_row(**cap), open_row("none", {**PLAN, "num_steps": 1}, **cap), {"kind": "close", "study": "none"}]
    claim = first_line(0.0, epsilon_cap=cap["max_epsilon"])
    assert run_verify(export([*rows, open_row("one", **cap)], claim))[0] == 0
    code, output, _ = run_verify(export([*rows[:2], open_row("one", **cap)], claim))
    assert code == 1
    assert "with its allotment" in output, "while it is open it may still spend"


def test_a_claim_of_more_or_of_infinite_is_safe(export: Callable[..., Path]) -> None:
    assert run_verify(export(whole_rows(), first_line(WHOLE_SPENT + 1)))[0] == 0
    code, output, _ = run_verify(export(whole_rows(), first_line(None)), as_json=True)
    assert (code, json.loads(output)["checked"][0]["claimed"]) == (0, "Infinity")


def test_nothing_reserved_is_nothing_spent(export: Callable[..., Path]) -> None:
    assert run_verify(export(whole_rows()[:3], first_line(0.0)))[0] == 0
    assert run_verify(export(whole_rows()[:1], first_line(0)))[0] == 0


def test_names_cannot_write_to_the_terminal(export: Callable[..., Path]) -> None:
    bodies = whole_rows()
    for body in bodies:
        if body.get("study") == "one":
            body["study"] = "\x1b[2J\ud800 zürich"
    code, output, _ = run_verify(export(bodies))
    assert code == 0
    assert "\x1b" not in output
    assert "zürich" in output


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
    path = export(whole_rows())
    path.write_bytes(BROKEN[name](path.read_bytes()))
    require_unreadable(run_verify(path))


def test_places_that_are_nothing_are_one_line(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none", Path("/dev/zero"), Path("/dev/null"), tmp_path / "a\udcff\nb"):
        require_unreadable(run_verify(place))


# ledger.db


def _write_database(path: Path, chains: dict[str, list[Row]]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE rows(dataset TEXT, number INTEGER, hash TEXT, body TEXT)")
        for dataset, rows in chains.items():
            values = [(dataset, row["body"]["number"], row["hash"], json.dumps(row["body"])) for row in rows]
            database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", reversed(values))


def test_a_database_has_one_chain_for_each_dataset(tmp_path: Path) -> None:
    path = tmp_path / "a ?#% ledger.db"
    others = chained([dataset_row(dataset="others"), open_row("one"), reserve_row("one", 1)])
    _write_database(path, {"people": chained(whole_rows()), "others": others})
    code, output, _ = run_verify(path, as_json=True)
    content = json.loads(output)
    assert code == 0, output
    assert [(item["name"], item["claimed"]) for item in content["checked"]] == [("others", None), ("people", None)]
    assert content["checked"][1]["epsilon"] == pytest.approx(WHOLE_SPENT, abs=1e-4)
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        query = "UPDATE rows SET body = replace(body, '\"round\": 1', '\"round\": 2') WHERE dataset = 'others'"
        database.execute(query)
    code, output, _ = run_verify(path)
    assert code == 1
    assert "'others': row 3: its hash is not that of its body" in output


def test_other_databases_are_one_line(tmp_path: Path) -> None:
    for number, table in enumerate(("CREATE TABLE others(a)", "CREATE TABLE rows(a)", "")):
        path = tmp_path / f"{number}.db"
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute(table or "CREATE TABLE rows(dataset, number, hash, body)")
            if not table:
                database.execute("INSERT INTO rows VALUES (NULL, 'x', 1.5, 7)")
        require_unreadable(run_verify(path))
    _write_database(tmp_path / "empty.db", {})
    require_unreadable(run_verify(tmp_path / "empty.db"))


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
        code, output, _ = run_verify(tmp_path / "ledger.db", as_json=True)
        spent = ledger.account().epsilon_spent(1e-5)
        assert code == 0, output
        assert spent - 1e-4 <= json.loads(output)["checked"][0]["epsilon"] <= spent
        header = first_line(spent)
        rows = [{"hash": row_hash, "body": row} for row, row_hash in ledger.rows()]
        (tmp_path / "export.jsonl").write_text(as_lines(header, *rows), encoding="utf-8")
        assert run_verify(tmp_path / "export.jsonl")[0] == 0
