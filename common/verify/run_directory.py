"""The half of `confide verify` that checks a run directory."""

import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from confide.common.verify.approved import approval_problems
from confide.common.verify.epsilon import recompute
from confide.common.verify.fields import Row, faults, show
from confide.common.verify.files import lines, parse, read
from confide.common.verify.findings import TOLERANCE, Item
from confide.common.verify.sharing import SHARING, if_broken, plan_faults
from confide.common.verify.statements import (
    Agreed,
    Statement,
    claim_problems,
    event_problems,
    read_statements,
    statement_problems,
)

# The fields of every plan that a run with privacy locks. Without a lock, a plan's own figure is compared with nothing.
_LOCKED = " unit sampling_probability noise_multiplier target_delta clip_norm clipping head_weight"
_OF_PLANS = ("privacy", "local", "evaluation", "federation")  # sections of the lock
_NAMES = "institution num_steps num_releases unit epsilon delta epsilon_of_the_whole_plan"
_IF_BROKEN = " epsilon_if_broken epsilon_if_broken_of_the_whole_plan"


def check_run(folder: Path) -> list[Item]:
    """Return the findings on a run directory: on the run as a whole, then on each row of its privacy.json."""
    content, run = parse(read(folder / "privacy.json"), "privacy.json"), Item(str(folder))
    toml = tomllib.loads(read(folder / "run.lock.toml").decode("utf-8"))
    lock = _locked(toml)
    needed = "status adjacency institutions" + (" run_sha256" if lock["sharing"] else "")
    run.problems = faults(content, needed, only=False)
    if run.problems or not isinstance(rows := content["institutions"], list):
        run.problems.append("no list of institutions that can be read: nothing is claimed")
        return [run]
    run.problems = list(approval_problems(folder, toml, content.get("run_sha256")))
    run.notes = [f"{key}: {show(content.get(key))}" for key in ("status", "simulated", "not_in_this_account")]
    run.notes += [f"run_sha256: {show(content['run_sha256'])}"] if lock["sharing"] else []
    run.notes += [] if rows else ["institutions has no row: nothing is claimed"]
    items = [_institution(row, lock) for row in rows]
    claims = {item.name: row for row, item in zip(rows, items, strict=True) if item.claimed is not None}
    if len({row["unit"] for row in claims.values()}) > 1:
        run.problems.append("mixed units: a record and a group are not the same promise")
    if len(names := {item.name for item in items}) < len(items):
        run.problems.append("an institution has several rows")
    places = (folder / "events.jsonl", *folder.glob("metrics.jsonl"))
    events = [line for place in places for line in lines(place)]
    shared = lock["sharing"]
    statements = _sums(run, folder, _agreed(content, toml, shared["min_members"]), events) if shared else {}
    if not shared and any(event.get("event") == "sum_started" for event in events):
        run.problems.append("its events show a secure sum, but its plan shares no noise")
    told = {(name, problem) for name, row in claims.items() for problem in claim_problems(row, statements)}
    run.problems += [f"{show(name)}: {problem}" for name, problem in sorted(told)]
    for (name, what), shown in _shown(events, statements, lock).items():
        if name not in names:
            run.problems.append(f"{show(name)} took part and has no row")
        elif name in claims and claims[name].get(what, 0) < shown:
            run.problems.append(f"{show(name)}: {what} = {claims[name].get(what, 0)}, but its files show {shown}")
    return [run, *items]


def _institution(row: Any, lock: Row) -> Item:
    """Check one row of privacy.json against its own plan and the run's lock."""
    row = {"num_releases": 0, **row} if isinstance(row, dict) else {}
    item, plan = Item(str(row.get("institution"))), row.get("plan")
    if row.get("no_privacy"):
        item.problems = ["ran without privacy: INFINITE"]
        return item
    plan = {"validation_releases": 0, "validation_noise_multiplier": 10.0, **plan} if isinstance(plan, dict) else plan
    names = _NAMES + (_IF_BROKEN if isinstance(plan, dict) and "sharing" in plan else "")
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
    other = [name for name, value in {"sharing": None, **plan}.items() if lock.get(name, value) != value]
    item.problems += [f"plan: {name} = {plan.get(name)} is not that of run.lock.toml" for name in other]
    accounts = {"epsilon": (plan, *done), "epsilon_of_the_whole_plan": (plan, *whole)}
    if "sharing" in plan:
        broken = if_broken(plan)
        accounts |= {"epsilon_if_broken": (broken, *done), "epsilon_if_broken_of_the_whole_plan": (broken, *whole)}
        item.max_colluding, item.claimed_if_broken = plan["sharing"]["max_colluding"], row["epsilon_if_broken"]
    computed = {name: recompute([charge], row["delta"], None) for name, charge in accounts.items()}
    item.epsilon, item.epsilon_if_broken = computed["epsilon"], computed.get("epsilon_if_broken")
    for name, epsilon in computed.items():
        if epsilon > row[name] * TOLERANCE:
            item.problems.append(f"{name} = {row[name]} is below {epsilon:.6g}, as computed anew")
    return item


def _agreed(content: Row, toml: Row, min_members: int) -> Agreed:
    """Return the terms of every sum, from privacy.json and the locked run."""
    study, model = (toml.get(name, {}) for name in ("study", "model"))
    if not isinstance(keys := study.get("keys", {}), dict):
        raise ValueError("run.lock.toml: study.keys must be a table")
    if wrong := [fault for key in keys.values() for fault in faults({"update_key": key}, "update_key")]:
        raise ValueError(f"run.lock.toml: study.keys: {wrong[0]}")
    fields = {"study": study.get("name"), "run_sha256": content["run_sha256"], "base_sha256": model.get("sha256")}
    return Agreed(fields, keys, min_members)


def _sums(run: Item, folder: Path, agreed: Agreed, events: list[Row]) -> dict[int, Statement]:
    """Return the statements of a run's sums, by round. What is wrong with them is added to the run's findings."""
    found, unreadable = read_statements(folder)
    run.problems += unreadable + list(statement_problems(found, agreed))
    run.problems += dict.fromkeys(event_problems(found, events))  # metrics.jsonl repeats some events
    counts = [len(statement.names) for statement in found.values()]
    run.notes += [f"statements: {len(counts)}, of {min(counts)} to {max(counts)} members"] if counts else []
    return found


def _locked(toml: Row) -> Row:
    """Return the fields of a plan that run.lock.toml repeats, by the plan's names, and the ``steps`` of a round."""
    for section in ("study", "model", *_OF_PLANS):
        if not isinstance(toml.get(section, {}), dict):
            raise ValueError(f"run.lock.toml: {section} must be a table")
    flat = {name: value for section in _OF_PLANS for name, value in toml.get(section, {}).items()}
    needed = "steps num_rounds" + ("" if flat.get("unit") == "none" else _LOCKED)
    needed += " validation_every?"
    needed += " validation_noise_multiplier" if flat.get("validation_every") else ""
    if wrong := faults(flat, needed, only=False):
        raise ValueError(f"run.lock.toml: {wrong[0]}")
    sharing = None
    if flat.get("aggregation") == "secure-sum":
        sharing = {**{name: flat.get(name) for name in SHARING.split()}, "min_members": flat.get("min_clients")}
        if wrong := faults(sharing, SHARING):
            raise ValueError(f"run.lock.toml: {wrong[0]}")
    releases = flat["num_rounds"] // every if (every := flat.get("validation_every")) else 0
    whole = {"num_steps": flat["steps"] * flat["num_rounds"], "validation_releases": releases}
    return {**flat, **whole, "sharing": sharing}


def _shown(events: list[Row], statements: dict[int, Statement], lock: Row) -> Counter[tuple[str, str]]:
    """Return the least steps and releases that each institution was asked for, by the run's events and statements."""
    signed, asks = Counter(name for one in statements.values() for name in one.names), Counter[tuple[str, str, str]]()
    shown = Counter({(name, "num_steps"): count for name, count in signed.items()})  # a step for each statement
    for line in events:
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
