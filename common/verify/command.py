"""`confide verify`: an outsider's second computation of the epsilon that a run, or a ledger, says it spent.

This file and its other parts import nothing else of ours, on purpose: they must not repeat a mistake that they seek.
"""

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from confide.common.verify.epsilon import recompute
from confide.common.verify.fields import faults, show
from confide.common.verify.files import lines, parse, read
from confide.common.verify.findings import TOLERANCE, Item
from confide.common.verify.ledger import Ledger
from confide.common.verify.run_directory import check_run

CANNOT_SHOW = (
    "that noise was really drawn: an account counts noise, it does not see it",
    "that the client was unmodified, and charged all that it computed",
    "that no rows were withheld, or all made anew, together with all anchors: compare the last hash with a signed one",
    "that people approved this run: compare run_sha256 with the APPROVE row of an institution's ledger",
    "how many members of a secure sum collude, or did not add their noise",
    "people in several datasets, or in one under two ids: each account stands alone",
)
_CLAIM = "epsilon_spent epsilon_cap delta epsilon_spent_if_broken? epsilon_cap_if_broken?"


def verify(
    place: Annotated[Path, typer.Argument(metavar="DIR_OR_LEDGER", help="run directory, ledger export or ledger.db")],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,  # noqa: FBT002
) -> None:
    """Compute anew the epsilon that a run or a ledger claims. Exit code 1: something differs; 2: it is neither."""
    try:
        kind, items = ("run", check_run(place)) if place.is_dir() else ("ledger", _ledgers(place))
    except (OSError, ValueError, TypeError, RecursionError, sqlite3.Error) as error:
        why = " ".join(f"{place}: {error}".split())[:500]
        typer.echo(f"confide: error: {why}; name a run directory or a ledger, as it was written", err=True)
        raise typer.Exit(2) from None
    problems = [f"{show(item.name)}: {problem}" for item in items for problem in item.problems]
    if as_json:
        checked = json.loads(json.dumps([asdict(item) for item in items]), parse_constant=str)  # "Infinity" as text
        content = {"ok": not problems, "kind": kind, "checked": checked, "problems": problems}
        typer.echo(json.dumps({**content, "cannot_show": CANNOT_SHOW}))
    else:
        _print(items, problems)
    if problems:
        raise typer.Exit(1)


def _print(items: list[Item], problems: list[str]) -> None:
    for item in items:
        typer.echo(f"{show(item.name)}: {_figures(item)}{'FAILS' if item.problems else 'agrees'}")
        typer.echo("".join(f"  {note}\n" for note in item.notes), nl=False)
    typer.echo("".join(f"PROBLEM {problem}\n" for problem in problems), nl=False)
    typer.echo(f"FAILED: {len(problems)} problems" if problems else "All of it agrees.")
    typer.echo("What this cannot show:\n" + "\n".join(f"- {line}" for line in CANNOT_SHOW))


def _figures(item: Item) -> str:
    """Return an item's epsilon, computed and claimed; where noise is shared both, each with its condition."""
    if item.epsilon is None:
        return ""
    text = f"epsilon {item.epsilon:.6g} at delta {item.delta:g}{_claimed(item.claimed)}"
    if item.epsilon_if_broken is not None:
        text += f", if at most {item.max_colluding} of a sum's members collude"
        text += f"; epsilon {item.epsilon_if_broken:.6g}{_claimed(item.claimed_if_broken)}, if all others do"
    return f"{text}: "


def _claimed(epsilon: float | None) -> str:
    return "" if epsilon is None else f", claimed {epsilon:.6g}"


def _ledger(name: object, rows: Iterable[tuple[Any, Any]]) -> tuple[Item, Ledger]:
    ledger = Ledger(recompute)
    for row_hash, row in rows:
        ledger.add(row_hash, row)
    ledger.settle()
    if ledger.first.get("dataset") != name:
        ledger.problems.append(f"dataset = {show(name)}, but its first row names {show(ledger.first.get('dataset'))}")
    order = ledger.order()
    item = Item(str(name), ledger.problems, epsilon=ledger.spent(order), delta=ledger.caps[-1][1])
    item.notes = [f"{ledger.number} rows, the last has hash {show(ledger.head)}; (epsilon, delta) caps: {ledger.caps}"]
    for study, now in ledger.studies.items():
        (_, steps, releases), (_, most, most_releases) = now.reserved, now.allotted
        item.notes.append(f"{show(study)}: {steps} of {most} steps, {releases} of {most_releases} validation releases")
    if ledger.shares_noise:
        item.notes.append(f"if shared noise is broken: epsilon {ledger.spent_by_account()[-1][1]:.6g}")
    if order:
        item.notes.append(f"by the filter at order {order}, which decides; by composed PLD: {ledger.spent(None):.6g}")
    return item, ledger


def _ledgers(path: Path) -> list[Item]:
    if read(path).startswith(b"SQLite format 3\0"):
        return _database(path)
    header, *entries = [*lines(path)] or [{}]
    if header.get("format") != "confide-ledger-1":
        raise ValueError("neither a ledger.db nor the export of a ledger")
    item, ledger = _ledger(header.get("dataset"), [(entry.get("hash"), entry.get("body")) for entry in entries])
    for number, entry in enumerate(entries, start=2):
        item.problems += [f"line {number}: {fault}" for fault in faults(entry, "hash body")]
    claim = header["claim"] if isinstance(header.get("claim"), dict) else {}
    claim |= {name: math.inf for name, value in claim.items() if name.startswith("epsilon_spent") and value is None}
    wrong = faults(header, "format dataset claim") + faults(claim, _CLAIM)
    item.problems += [f"line 1: {fault}" for fault in wrong]
    if not wrong:
        item.claimed = float(claim["epsilon_spent"])
        item.problems += [f"claim: {problem}" for problem in _false_claims(claim, ledger)]
    return [item]


def _false_claims(claim: dict[str, Any], ledger: Ledger) -> Iterator[str]:
    cap = tuple(claim[name] for name in ("epsilon_cap", "delta", "epsilon_cap_if_broken") if name in claim)
    if cap != ledger.caps[-1]:
        yield f"epsilon_cap and delta are not those in force, {ledger.caps[-1]}"
    computed = {"epsilon_spent": (accounts := ledger.spent_by_account())[0][1]}
    computed |= {"epsilon_spent_if_broken": accounts[-1][1]} if ledger.shares_noise else {}
    for name, epsilon in computed.items():
        if name not in claim:
            yield f"{name} is missing, though a study shares noise"
        elif epsilon > claim[name] * TOLERANCE:
            yield f"{name} = {claim[name]} is below {epsilon:.6g}, as computed anew"


def _database(path: Path) -> list[Item]:
    chains: dict[Any, list[tuple[Any, Any]]] = {}
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        for dataset, row_hash, body in database.execute("SELECT dataset, hash, body FROM rows ORDER BY 1, number"):
            chains.setdefault(dataset, []).append((row_hash, parse(body, "a row")))
    if not chains:
        raise ValueError("a ledger without a row")
    return [_ledger(name, chain)[0] for name, chain in chains.items()]
