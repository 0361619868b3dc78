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
