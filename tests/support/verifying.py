"""`confide verify` in this process, and ledgers for it, row by row, by a writer that shares no code with ours."""

import contextlib
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import typer

from confide.common.privacy.filter import Charge, composed_epsilon, filter_epsilon
from confide.common.privacy.plan import PrivacyPlan
from confide.common.verify import command as module

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


def dataset_row(**changes: Any) -> Row:
    first = {"kind": "dataset", "dataset": "people", "unit": "record", "max_records_per_group": 1, "order": ORDER}
    return {**first, "simulated": False, **CAP, **changes}


def open_row(study: str, plan: Row = PLAN, **changes: Any) -> Row:
    allotted = {"steps": plan["num_steps"], "releases": plan["validation_releases"], "returns": True}
    own = {"kind": "open", "study": study, "plan": dict(plan), "accountant": "dp-accounting 0.6.0"}
    return {**own, **allotted, **CAP, **changes}


def reserve_row(study: str, number: int, steps: int = 1, **changes: Any) -> Row:
    row = {"kind": "reserve", "study": study, "lineage": "5" * 32, "round": number, "what": "update", "steps": steps}
    row |= {"releases": 0, "input_sha256": "a" * 64, "run_sha256": "b" * 64, "attempt": 1, "coins": "os"}
    return {**row, **CAP, **changes}


def validation_row(study: str, number: int, **changes: Any) -> Row:
    return reserve_row(study, number, steps=0, what="validation", releases=1, **changes)


def seal_row(number: int) -> Row:
    return {"kind": "seal", "reserve": number, "sha256": "c" * 64, "bytes": 1000}


def chained(bodies: list[Row]) -> list[Row]:
    """Rows with numbers, salts and hashes: what a liar who owns the ledger makes of any rows."""
    rows, previous = [], "0" * 64
    for number, body in enumerate(bodies, start=1):
        common = {"number": number, "previous": previous, "salt": f"{number:032x}", "time": 1_800_000_000 + number}
        row = {**common, **body}
        text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        previous = hashlib.sha256(text.encode()).hexdigest()
        rows.append({"hash": previous, "body": row})
    return rows


def first_line(spent: float | None, **changes: Any) -> Row:
    claim = {"epsilon_spent": spent, "epsilon_cap": CAP["max_epsilon"], "delta": CAP["max_delta"], **changes}
    return {"format": "confide-ledger-1", "dataset": "people", "claim": claim}


def as_lines(*lines: Row) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def whole_rows() -> list[Row]:
    """All that may happen: a retry, validation, an approval, a lowered and a raised cap, two studies, an end."""
    low = {**CAP, "max_epsilon": 3.0}
    return [
        dataset_row(),  # row 1
        {"kind": "approve", "study": "one", "run_sha256": "b" * 64},
        open_row("one"),
        reserve_row("one", 1, steps=3),
        seal_row(4),
        {"kind": "ack", "reserve": 4},
        reserve_row("one", 2, steps=3),  # killed; row 7
        reserve_row("one", 2, steps=3, attempt=2),
        seal_row(8),
        validation_row("one", 2),
        seal_row(10),
        {"kind": "close", "study": "one"},
        {"kind": "policy", **low},
        open_row("two", {**PLAN, "noise_multiplier": 3.0}, **low),
        reserve_row("two", 1, **low),
        {"kind": "policy", **CAP},
        reserve_row("two", 2),
        seal_row(17),
        {"kind": "retire"},
    ]


def charge(steps: int, releases: int, **changes: Any) -> Charge:
    return Charge(PrivacyPlan(**{**PLAN, **changes}), steps, releases)


WHOLE_SPENT = filter_epsilon([charge(9, 1), charge(2, 0, noise_multiplier=3.0)], 1e-5, ORDER)
SINGLE_SPENT = composed_epsilon([charge(9, 1)], 1e-5)


def run_verify(place: Path, *, as_json: bool = False) -> tuple[int, str, str]:
    output, errors, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            module.verify(place, as_json)
        except typer.Exit as stopped:
            code = stopped.exit_code
    return code, output.getvalue(), errors.getvalue()


def require_unreadable(result: tuple[int, str, str]) -> None:
    code, output, errors = result
    assert (code, output) == (2, "")
    assert errors.startswith("confide: error: ")
    assert len(errors.splitlines()) == 1


def asked_again(what: str, number: int, *names: str) -> Row:
    return {"event": "asked_again", "what": what, "round": number, "institutions": names}
