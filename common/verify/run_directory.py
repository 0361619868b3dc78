"""The half of `confide verify` that checks a run directory."""

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from confide.common.verify.epsilon import recompute
from confide.common.verify.fields import faults, show
from confide.common.verify.files import lines, parse, read
from confide.common.verify.findings import TOLERANCE, Item
from confide.common.verify.sharing import plan_faults

# The fields of every plan that a run with privacy locks. Without a lock, a plan's own figure is compared with nothing.
_LOCKED = " unit sampling_probability noise_multiplier target_delta clip_norm clipping head_weight"


def check_run(folder: Path) -> list[Item]:
    """Return the findings on a run directory: on the run as a whole, then on each row of its privacy.json."""
    content, run, lock = parse(read(folder / "privacy.json"), "privacy.json"), Item(str(folder)), _locked(folder)
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
    item.epsilon = recompute([(plan, *done)], row["delta"], None)
    in_all = recompute([(plan, *whole)], row["delta"], None)
    for name, epsilon in (("epsilon", item.epsilon), ("epsilon_of_the_whole_plan", in_all)):
        if epsilon > row[name] * TOLERANCE:
            item.problems.append(f"{name} = {row[name]} is below {epsilon:.6g}, as computed anew")
    return item


def _locked(folder: Path) -> dict[str, Any]:
    """Return the fields of a plan that run.lock.toml repeats, by the plan's names, and the ``steps`` of a round."""
    lock = tomllib.loads(read(folder / "run.lock.toml").decode("utf-8"))
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
    for line in (line for path in (folder / "events.jsonl", *folder.glob("metrics.jsonl")) for line in lines(path)):
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
