"""A run directory: what is whole agrees, and each false figure is found."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.verifying import Row, asked_again, require_unreadable, run_verify

from confide.common.privacy.accounting import epsilon
from confide.common.privacy.plan import PrivacyPlan


def _edit(folder: Path, edit: Callable[[Row], object]) -> None:
    content = json.loads((folder / "privacy.json").read_text(encoding="utf-8"))
    edit(content)
    (folder / "privacy.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_run_directory_agrees(folder: Path) -> None:
    code, output, _ = run_verify(folder)
    assert code == 0, output
    assert "'st-mary': epsilon" in output
    assert "8 of 8 steps, 2 of 2 validation releases" in output
    assert "status: 'completed'" in output
    assert "noise was really drawn" in output
    code, output, _ = run_verify(folder, as_json=True)
    content = json.loads(output)
    assert (code, content["ok"], content["kind"]) == (0, True, "run")
    rows = {item["name"]: item for item in content["checked"]}
    plan = PrivacyPlan(**json.loads((folder / "privacy.json").read_text(encoding="utf-8"))["institutions"][0]["plan"])
    assert rows["st-mary"]["claimed"] == epsilon(plan) >= rows["st-mary"]["epsilon"] > epsilon(plan) - 1e-4
    assert rows["late"]["claimed"] == epsilon(plan, 4, 1)


def test_a_run_that_stopped_agrees_and_says_so(folder: Path) -> None:
    _edit(folder, lambda content: content.update(status="stopped", simulated=True))
    code, output, _ = run_verify(folder)
    assert code == 0
    assert "status: 'stopped'" in output
    assert "simulated: True" in output


def test_rows_from_before_validation_agree(folder: Path) -> None:
    for row, name in ((0, "num_releases"), (1, "num_releases")):
        _edit(folder, lambda content, row=row, name=name: content["institutions"][row].pop(name))  # type: ignore[misc]
    for name in ("validation_releases", "validation_noise_multiplier"):
        for row in (0, 1):
            _edit(folder, lambda content, row=row, name=name: content["institutions"][row]["plan"].pop(name))  # type: ignore[misc]
    for name in ("metrics.jsonl", "run.lock.json"):
        (folder / name).unlink()
    lock = (folder / "run.lock.toml").read_text(encoding="utf-8")
    (folder / "run.lock.toml").write_text(lock.replace("validation_every", "before"), encoding="utf-8")
    events = (folder / "events.jsonl").read_text(encoding="utf-8").replace('"num_releases"', '"before"').splitlines()
    (folder / "events.jsonl").write_text("\n".join(line for line in events if '"validation"' not in line), "utf-8")
    assert run_verify(folder)[0] == 0


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
    "fewer steps": (_first(num_steps=7), "num_steps = 7, but its files show 8"),
    "fewer releases": (_first(num_releases=1), "num_releases = 1, but its files show 2"),
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
    code, output, errors = run_verify(folder)
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
    assert run_verify(folder)[0] == 1, "it is found while the lock has it"
    (folder / "run.lock.toml").write_text("".join(left), encoding="utf-8")
    result = run_verify(folder)
    require_unreadable(result)
    assert f"run.lock.toml: {name} is missing" in result[2]


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("metrics.jsonl", {"event": "round", "num_steps": {"st-mary": 10}}, "files show 10"),
        ("metrics.jsonl", {"event": "round", "num_steps": {"st-mary": "many"}}, "files show 1000000000"),
        ("metrics.jsonl", {"event": "round", "num_releases": {"late": 2}}, "num_releases = 1, but its files show 2"),
        ("events.jsonl", {"event": "accepted", "round": 5, "institution": "st-mary"}, "num_steps = 8, but its files"),
        ("events.jsonl", {"event": "accepted", "round": 5, "institution": "st-jude"}, "'st-jude' took part"),
        ("events.jsonl", asked_again("update", 1, "late"), "num_steps = 4, but its files show 6"),
        ("events.jsonl", asked_again("validation", 2, "st-mary", "late"), "num_releases = 1, but its files show 2"),
        ("events.jsonl", asked_again("update", 1, "st-jude"), "'st-jude' took part"),
        ("events.jsonl", asked_again("update", 3, "late"), "num_steps = 4, but its files show 6"),
        ("events.jsonl", asked_again("validation", 4, "late"), "num_releases = 1, but its files show 2"),
    ],
)
def test_the_run_s_own_events_are_compared(name: str, line: Row, words: str, folder: Path) -> None:
    with (folder / name).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    code, output, _ = run_verify(folder)
    assert code == 1
    assert words in output


def _add(folder: Path, *lines: Row) -> None:
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def test_of_a_round_one_retry_is_charged_and_of_a_run_its_plan(folder: Path) -> None:
    """Asked four times, as often as a server may; who had reached the end of its plan has no more to give."""
    _add(
        folder,
        *[asked_again("update", 3, "late", "st-mary")] * 3,
        *[asked_again("validation", 4, "late", "st-mary")] * 3,
    )
    _edit(folder, lambda content: content["institutions"][1].update(num_steps=6, num_releases=2, epsilon=99.0))
    code, output, _ = run_verify(folder)
    assert code == 0, output


def test_a_run_that_nobody_accepted_claims_nothing_and_agrees(folder: Path) -> None:
    _edit(folder, lambda content: content.update(institutions=[], status="stopped"))
    (folder / "metrics.jsonl").unlink()
    (folder / "events.jsonl").write_text('{"event": "offered", "declared_units": {}}\n', encoding="utf-8")
    code, output, _ = run_verify(folder)
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
        assert run_verify(folder)[0] == 1
    else:
        require_unreadable(run_verify(folder))


@pytest.mark.parametrize(("content", "code"), [(None, 0), (b"{}", 1), (b"[1]", 1), (b"{", 2), (b"\xff", 2)])
def test_the_text_of_the_run_may_be_missing_and_is_no_other(content: bytes | None, code: int, folder: Path) -> None:
    (folder / "run.lock.json").unlink()
    if content is not None:
        (folder / "run.lock.json").write_bytes(content)
    assert run_verify(folder)[0] == code
