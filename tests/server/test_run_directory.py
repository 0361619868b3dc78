"""What a run leaves behind."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from confide.common.errors import InputError
from confide.common.privacy import accounting
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.plan import PrivacyPlan
from confide.common.run_config import RunConfig, check, make_plan
from confide.server.run_directory import RunDirectory, spent
from confide.server.strategy import Institution

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def run(make_run: MakeRun) -> RunConfig:
    return make_run(privacy={"noise_multiplier": 2.0}, federation={"num_rounds": 4})


def test_the_lock_file_is_the_run(run: RunConfig, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "a" / "b", run)
    content = tomllib.loads((directory.path / "run.lock.toml").read_text(encoding="utf-8"))
    assert check(RunConfig, content, "lock") == run


def test_events_are_lines_and_rounds_are_metrics(run: RunConfig, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, run)
    assert directory.rounds() == []
    directory.record({"event": "round_started", "round": 1})
    directory.record({"event": "round", "round": 1, "name": "zürich \u2028 [/b]"})
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").split("\n") if line]
    assert [event["event"] for event in events] == ["round_started", "round"]
    assert all(event["time"] > 1.6e9 for event in events)
    assert directory.rounds() == events[1:]


def test_a_folder_with_anything_in_it_is_refused_and_left_alone(run: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match=r"--out .* must be new or empty; choose another folder"):
        RunDirectory(tmp_path, run)
    with pytest.raises(InputError, match="--out"):
        RunDirectory(tmp_path / "thesis.txt", run)
    with pytest.raises(InputError, match="--out"):
        RunDirectory(tmp_path / "thesis.txt" / "run", run)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_privacy_json_says_what_was_spent_so_far(run: RunConfig, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, run)
    institutions = [
        Institution("st-mary", 500, num_steps=4),
        Institution("late", 90, num_steps=1),
        Institution("no", 9),
    ]
    directory.write_privacy("stopped", run, institutions, simulated=False)
    content = json.loads((tmp_path / "privacy.json").read_text(encoding="utf-8"))
    assert (content["status"], content["simulated"], content["plan_sha256"]) == ("stopped", False, run.sha256())
    assert "add or remove" in content["adjacency"]
    assert "two" in content["adjacency"]
    full, one, none = content["institutions"]
    plan = make_plan(run, 500)
    assert isinstance(plan, PrivacyPlan)
    assert full["epsilon"] == full["epsilon_of_the_whole_plan"] == epsilon(plan)
    assert 0 < one["epsilon"] < full["epsilon"]
    assert none["epsilon"] == 0
    assert one["plan"]["declared_units"] == 90
    assert full["plan"]["noise_multiplier"] == 2.0


def test_without_privacy_there_is_no_epsilon(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(privacy={"unit": "none"})
    institution = Institution("st-mary", 500, num_steps=4)
    directory = RunDirectory(tmp_path, run)
    directory.write_privacy("completed", run, [institution], simulated=True)
    [row] = json.loads((tmp_path / "privacy.json").read_text(encoding="utf-8"))["institutions"]
    assert row["no_privacy"] is True
    assert not any("epsilon" in key for key in row)
    assert spent(run, institution) is None


# What a resumed run knows of the rounds before


def _interrupted(run: RunConfig, folder: Path, started: int, ended: int) -> RunDirectory:
    """Rounds that began, of which the last may have no line of its own: a crash came between checkpoint and line."""
    directory = RunDirectory(folder, run)
    directory.record({"event": "offered", "institutions": ["mary", "jude"]})
    for number in range(1, started + 1):
        directory.record({"event": "round_started", "round": number})
        directory.record({"event": "accepted", "round": number, "institution": "mary"})
        if number <= ended:
            counted = {"num_steps": {"mary": number, "jude": number}, "num_releases": {"mary": number // 2, "jude": 0}}
            directory.record({"event": "round", "round": number, **counted})
    return directory


def test_a_round_that_is_saved_counts_though_a_crash_took_its_line(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(federation={"num_rounds": 4}, evaluation={"validation_every": 2})
    counts = _interrupted(run, tmp_path / "two", 2, 1).counts(run, saved=2)
    assert counts["mary"] == {"num_steps": 2, "num_releases": 1, "last_asked": 2, "accepted": 2}
    assert counts["jude"] == {"num_steps": 2, "num_releases": 1, "last_asked": 2, "accepted": 0}
    without_a_line = _interrupted(run, tmp_path / "none", 3, 0).counts(run, saved=3)  # three crashes, three rounds
    assert without_a_line["mary"] == {"num_steps": 3, "num_releases": 1, "last_asked": 3, "accepted": 3}


def test_a_round_that_is_asked_for_again_counts_once(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(federation={"num_rounds": 4}, evaluation={"validation_every": 2})
    directory = _interrupted(run, tmp_path, 3, 2)
    directory.record({"event": "accepted", "round": 2, "institution": "mary"})  # again, after a crash
    counts = directory.counts(run, saved=2)
    assert counts["mary"] == {"num_steps": 2, "num_releases": 1, "last_asked": 2, "accepted": 3}
    assert RunDirectory(tmp_path / "new", run).counts(run, saved=0) == {}


def test_the_account_of_a_plan_is_made_once_and_not_for_every_institution(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = accounting.RdpAccountant
    monkeypatch.setattr(accounting, "RdpAccountant", lambda *rest: made.append(rest) or real(*rest))
    run = make_run(privacy={"noise_multiplier": 3.21})
    RunDirectory(tmp_path / "run", run).write_privacy(
        "completed", run, [Institution(f"site-{number}", 20, num_steps=1) for number in range(50)], simulated=True
    )
    assert len(made) == 1
