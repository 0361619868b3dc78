"""`confide verify`: an outsider's second computation of the epsilon that a run, or a ledger, says it spent.

This file and its other parts import nothing else of ours, on purpose: they must not repeat a mistake that they seek.
"""

import json
import math
import sqlite3
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from confide.common.verify.epsilon import recomputed
from confide.common.verify.fields import faults, show
from confide.common.verify.ledger import TOLERANCE, Charge, Item, Ledger
from confide.common.verify.sharing import plan_faults

CANNOT_SHOW = (
    "that noise was really drawn: an account counts noise, it does not see it",
    "that the client was unmodified, and charged all that it computed",
    "that no rows were withheld, or all made anew, together with all anchors: compare the last hash with a signed one",
    "people in several datasets, or in one under two ids: each account stands alone",
)
_CLAIM = "epsilon_spent epsilon_cap delta epsilon_spent_if_broken? epsilon_cap_if_broken?"
# The fields of every plan that a run with privacy locks. Without a lock, a plan's own figure is compared with nothing.
_LOCKED = " unit sampling_probability noise_multiplier target_delta clip_norm clipping head_weight"


def verify(
    place: Annotated[Path, typer.Argument(metavar="DIR_OR_LEDGER", help="run directory, ledger export or ledger.db")],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,  # noqa: FBT002
) -> None:
    """Compute anew the epsilon that a run or a ledger claims. Exit code 1: something differs; 2: it is neither."""
    try:
        kind, items = ("run", _run(place)) if place.is_dir() else ("ledger", _ledgers(place))
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
        claimed = "" if item.claimed is None else f", claimed {item.claimed:.6g}"
        at = "" if item.epsilon is None else f"epsilon {item.epsilon:.6g} at delta {item.delta:g}{claimed}: "
        typer.echo(f"{show(item.name)}: {at}{'FAILS' if item.problems else 'agrees'}")
        typer.echo("".join(f"  {note}\n" for note in item.notes), nl=False)
    typer.echo("".join(f"PROBLEM {problem}\n" for problem in problems), nl=False)
    typer.echo(f"FAILED: {len(problems)} problems" if problems else "All of it agrees.")
    typer.echo("What this cannot show:\n" + "\n".join(f"- {line}" for line in CANNOT_SHOW))


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"{path.name} is no file")
    return path.read_bytes()


def _parse(content: bytes | str, where: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("a key comes twice")  # two readers could then see two values
        return found

    try:
        return json.loads(content, object_pairs_hook=unique)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where} is not JSON: {error}") from None


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_read(path).splitlines(), start=1):
        content = _parse(line, where := f"{path.name} line {number}")
        if not isinstance(content, dict):
            raise ValueError(f"{where} is no object")
        yield content


def _recompute(charges: Sequence[Charge], delta: float, order: int | None) -> float:
    """Return epsilon by PLD, or by the Renyi filter at an order; infinite if it cannot be computed."""
    names = ("sampling_probability", "noise_multiplier", "validation_noise_multiplier")
    charged = tuple((*(plan[name] for name in names), *counts) for plan, *counts in charges if any(counts))
    return recomputed(charged, delta, order) if charged else 0.0


def _run(folder: Path) -> list[Item]:
    content, run, lock = _parse(_read(folder / "privacy.json"), "privacy.json"), Item(str(folder)), _locked(folder)
    run.problems = faults(content, "status adjacency institutions", only=False)
    if run.problems or not isinstance(rows := content["institutions"], list):
        run.problems.append("no list of institutions that can be read: nothing is claimed")
        return [run]
    run.notes = [f"{key}: {show(content.get(key))}" for key in ("status", "simulated", "not_in_this_account")]
    run.notes += [] if rows else ["institutions has no row: nothing is claimed"]
    items = [_institution(row, lock) for row in rows]
    claims = {item.name: row for row, item in zip(rows, items, strict=True) if item.claimed is not None}
    if len({row["unit"] for row in claims.values()}) > 1:
        run.problems.append("mixed units: a record and a group are not the same promise")
    if len(names := {item.name for item in items}) < len(items):
        run.problems.append("an institution has several rows")
    for (name, what), shown in _shown(folder, lock).items():
        if name not in names:
            run.problems.append(f"{show(name)} took part and has no row")
        elif name in claims and claims[name].get(what, 0) < shown:
            run.problems.append(f"{show(name)}: {what} = {claims[name].get(what, 0)}, but its events show {shown}")
    return [run, *items]


def _institution(row: Any, lock: dict[str, Any]) -> Item:
    """Check one row of privacy.json against its own plan and the run's lock."""
    names = "institution num_steps num_releases unit epsilon delta epsilon_of_the_whole_plan"
    row = {"num_releases": 0, **row} if isinstance(row, dict) else {}
    item, plan = Item(str(row.get("institution"))), row.get("plan")
    if row.get("no_privacy"):
        item.problems = ["ran without privacy: INFINITE"]
        return item
    plan = {"validation_releases": 0, "validation_noise_multiplier": 10.0, **plan} if isinstance(plan, dict) else plan
    item.problems = faults(row, names, only=False) + [f"plan: {fault}" for fault in plan_faults(plan)]
    if item.problems:
        return item
    item.claimed, item.delta = row["epsilon"], row["delta"]
    done, whole = (row["num_steps"], row["num_releases"]), (plan["num_steps"], plan["validation_releases"])
    item.notes = [f"{done[0]} of {whole[0]} steps, {done[1]} of {whole[1]} validation releases"]
    if done[0] > whole[0] or done[1] > whole[1]:
        item.problems.append("num_steps or num_releases is above what the plan has")
    if (row["unit"], row["delta"]) != (plan["unit"], plan["target_delta"]):
        item.problems.append("unit or delta is not the plan's")
    other = [name for name, value in plan.items() if lock.get(name, value) != value]
    item.problems += [f"plan: {name} = {plan[name]} is not that of run.lock.toml" for name in other]
    item.epsilon = _recompute([(plan, *done)], row["delta"], None)
    in_all = _recompute([(plan, *whole)], row["delta"], None)
    for name, epsilon in (("epsilon", item.epsilon), ("epsilon_of_the_whole_plan", in_all)):
        if epsilon > row[name] * TOLERANCE:
            item.problems.append(f"{name} = {row[name]} is below {epsilon:.6g}, as computed anew")
    return item


def _locked(folder: Path) -> dict[str, Any]:
    """Return the fields of a plan that run.lock.toml repeats, by the plan's names, and the ``steps`` of a round."""
    lock = tomllib.loads(_read(folder / "run.lock.toml").decode("utf-8"))
    flat: dict[str, Any] = {}
    for section in ("privacy", "local", "evaluation", "federation"):
        flat |= lock.get(section, {})
    needed = "steps num_rounds" + ("" if flat.get("unit") == "none" else _LOCKED)
    needed += " validation_noise_multiplier" if flat.get("validation_every") else ""
    if wrong := faults(flat, needed, only=False):
        raise ValueError(f"run.lock.toml: {wrong[0]}")
    releases = flat["num_rounds"] // every if (every := flat.get("validation_every")) else 0
    return {**flat, "num_steps": flat["steps"] * flat["num_rounds"], "validation_releases": releases}


def _shown(folder: Path, lock: dict[str, Any]) -> Counter[tuple[str, str]]:
    """Return the least steps and releases that were asked of each institution, by the run's own events."""
    shown, asks = Counter[tuple[str, str]](), Counter[tuple[str, str, str]]()
    for line in (line for path in (folder / "events.jsonl", *folder.glob("metrics.jsonl")) for line in _lines(path)):
        kind = "num_releases" if line.get("what") == "validation" else "num_steps"
        if "what" in line or line.get("event") == "accepted":
            for name in line.get("institutions", [line.get("institution")]):
                ask = (str(name), kind, str(line.get("round")))
                asks[ask] = max(1, asks[ask] + ("what" in line))
        for what in ("num_steps", "num_releases"):
            for name, count in dict(line.get(what, {})).items():
                least = 10**9 if faults({what: count}, what) else count  # no number: more than anyone can claim
                shown[name, what] = max(least, shown[name, what])
    rounds = Counter((name, kind) for name, kind, _ in asks)
    retries = Counter((name, kind) for (name, kind, _), times in asks.items() if times > 1)  # charged once a round
    for key, count in rounds.items():
        each, most = (lock["steps"], lock["num_steps"]) if key[1] == "num_steps" else (1, lock["validation_releases"])
        shown[key] = max(shown[key], count * each, min((count + retries[key]) * each, most))
    return shown


def _ledger(name: object, rows: Iterable[tuple[Any, Any]]) -> tuple[Item, Ledger]:
    ledger = Ledger(_recompute)
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
    if _read(path).startswith(b"SQLite format 3\0"):
        return _database(path)
    header, *entries = [*_lines(path)] or [{}]
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
            chains.setdefault(dataset, []).append((row_hash, _parse(body, "a row")))
    if not chains:
        raise ValueError("a ledger without a row")
    return [_ledger(name, chain)[0] for name, chain in chains.items()]
