"""What a run leaves behind."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from confide.common.config.run import RunConfig, check, make_plan
from confide.common.errors import ConfideError, InputError
from confide.common.privacy import accounting
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.plan import PrivacyPlan
from confide.server.results.report_facts import epsilon_of
from confide.server.results.run_directory import RunDirectory, spent
from confide.server.rounds.roster import Institution

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def run(make_run: MakeRun) -> RunConfig:
    return make_run(privacy={"noise_multiplier": 2.0}, federation={"num_rounds": 4})


def test_the_lock_file_is_the_run(run: RunConfig, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "a" / "b", run)
    content = tomllib.loads((directory.path / "run.lock.toml").read_text(encoding="utf-8"))
    assert check(RunConfig, content, "lock") == run
    assert hashlib.sha256((directory.path / "run.lock.json").read_bytes()).hexdigest() == run.sha256()


def test_events_are_lines_and_rounds_are_metrics(run: RunConfig, tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, run)
    assert directory.rounds() == []
    directory.record({"event": "round_started", "round": 1})
    directory.record({"event": "round", "round": 1, "name": "zürich \u2028 [/b]"})
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text(encoding="utf-8").split("\n") if line]
    assert [event["event"] for event in events] == ["round_started", "round"]
    assert all(event["time"] > 1.6e9 for event in events)
    assert directory.rounds() == events[1:]


def test_of_a_round_that_was_asked_again_the_last_line_counts(run: RunConfig, tmp_path: Path) -> None:
    """Its checkpoint was damaged, or a crash made up for another that came too late."""
    directory = RunDirectory(tmp_path, run)
    for number, accepted in ((1, 2), (3, 2), (2, 1), (3, 1)):
        directory.record({"event": "round", "round": number, "accepted": accepted})
    assert [(line["round"], line["accepted"]) for line in directory.rounds()] == [(1, 2), (2, 1), (3, 1)]


@pytest.mark.parametrize("left", [{}, {"run.lock.toml": ""}, {".run.lock.toml.7.ab.tmp": "[stu"}], ids=str)
def test_a_run_that_began_on_a_full_disk_has_its_lock_file_when_it_goes_on(
    run: RunConfig, tmp_path: Path, left: dict[str, str]
) -> None:
    """Without it, `confide verify` would refuse the run for ever."""
    for name, content in left.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    RunDirectory.open(tmp_path, run)
    content = tomllib.loads((tmp_path / "run.lock.toml").read_text(encoding="utf-8"))
    assert check(RunConfig, content, "lock") == run


def test_a_full_disk_leaves_no_half_of_a_lock_file(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        RunDirectory.open(tmp_path, run)
    assert not (tmp_path / "run.lock.toml").exists()


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
    assert (content["status"], content["simulated"], content["run_sha256"]) == ("stopped", False, run.sha256())
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


def test_epsilon_after_a_round_is_that_of_its_counts_whatever_the_sizes(make_run: MakeRun) -> None:
    event = {"num_steps": {"mary": 2, "jude": 3}, "num_releases": {"mary": 0, "jude": 0}}
    run = make_run(privacy={"noise_multiplier": 2.0})
    sizes = {"mary": 90, "jude": 500}
    by_account = {
        name: spent(run, Institution(name, sizes[name], num_steps=steps)) for name, steps in event["num_steps"].items()
    }
    assert epsilon_of(run, event) == by_account
    assert epsilon_of(make_run(privacy={"unit": "none"}), event) == {}


# What a resumed run knows of the rounds before


def _ask(directory: RunDirectory, number: int, names: tuple[str, ...] = ("mary", "jude"), what: str = "update") -> None:
    directory.record({"event": "round_started", "what": what, "round": number, "institutions": list(names)})


def _counts(directory: RunDirectory, run: RunConfig) -> dict[str, tuple[int, int, int]]:
    known = directory.institutions(run).items()
    return {name: (item.num_steps, item.num_releases, item.accepted) for name, item in known}


def _interrupted(run: RunConfig, folder: Path, started: int, ended: int) -> RunDirectory:
    """Rounds that began, of which the last may have no line of its own: a crash came between checkpoint and line."""
    directory = RunDirectory(folder, run)
    directory.record({"event": "offered", "declared_units": {"mary": 500, "jude": 90}})
    for number in range(1, started + 1):
        _ask(directory, number)
        directory.record({"event": "accepted", "round": number, "institution": "mary"})
        if number <= ended:
            counted = {"num_steps": {"mary": number, "jude": number}, "num_releases": {"mary": number // 2, "jude": 0}}
            directory.record({"event": "round", "round": number, **counted})
    return directory


def test_what_was_asked_counts_whatever_a_crash_took(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(federation={"num_rounds": 4}, evaluation={"validation_every": 2})
    directory = _interrupted(run, tmp_path / "two", 2, 1)
    _ask(directory, 2, ("mary",), "validation")
    _ask(directory, 3, ("jude",))  # and a crash: no line of the rounds 2 and 3
    assert _counts(directory, run) == {"mary": (2, 1, 2), "jude": (3, 0, 0)}
    assert {item.declared_units for item in directory.institutions(run).values()} == {500, 90}
    assert RunDirectory(tmp_path / "new", run).institutions(run) == {}


def test_a_round_that_is_asked_for_again_counts_as_its_retry_and_an_answer_once(
    make_run: MakeRun, tmp_path: Path
) -> None:
    """A site charges for two attempts at the most, and never for more than its plan."""
    run = make_run(federation={"num_rounds": 4})
    directory = _interrupted(run, tmp_path, 2, 2)
    for _ in range(3):
        _ask(directory, 2, ("mary",))
        directory.record({"event": "accepted", "round": 2, "institution": "mary"})
    assert _counts(directory, run) == {"mary": (3, 0, 2), "jude": (2, 0, 0)}
    for number in (3, 3, 4):
        _ask(directory, number)
    assert _counts(directory, run)["mary"] == (4, 0, 2)


def test_who_has_left_keeps_its_row_and_who_comes_back_its_count(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(federation={"num_rounds": 4})
    directory = _interrupted(run, tmp_path, 1, 1)
    directory.record({"event": "offered", "declared_units": {"jude": 90, "anne": 70}})
    _ask(directory, 2, ("jude", "anne"))
    assert _counts(directory, run) == {"mary": (1, 0, 1), "jude": (2, 0, 0), "anne": (1, 0, 0)}


def test_asks_are_on_the_disk_before_they_go_out(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    directory = RunDirectory(tmp_path, run)
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / "events.jsonl").read_bytes()))
    directory.record({"event": "offered", "declared_units": {"mary": 500}})
    _ask(directory, 1, ("mary",))
    directory.record({"event": "accepted", "round": 1, "institution": "mary"})
    assert [content.count(b"\n") for content in synced] == [1, 2], "a fsync for each ask, and none for an answer"
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o077 == (tmp_path / "run.lock.toml").stat().st_mode & 0o077


def test_a_run_that_goes_on_claims_nothing_until_it_ends_and_has_no_torn_line(run: RunConfig, tmp_path: Path) -> None:
    directory = _interrupted(run, tmp_path, 1, 1)
    directory.write_privacy("stopped", run, list(directory.institutions(run).values()), simulated=False)
    whole = (tmp_path / "events.jsonl").read_bytes()
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "acc')
    again = RunDirectory.open(tmp_path, run)
    assert (tmp_path / "events.jsonl").read_bytes() == whole
    assert not (tmp_path / "privacy.json").exists()
    assert len(again.rounds()) == 1


OLD = [
    {"event": "offered", "asked": 1, "accepted": 1, "institutions": ["mary"], "others": {}},
    {"event": "round_started", "round": 1, "asked": 1},
    {"event": "accepted", "round": 1, "institution": "mary"},
]


@pytest.mark.parametrize("lines", [OLD, OLD[:2], OLD[2:]], ids=["old", "old, without an answer", "damaged"])
def test_a_run_whose_events_lack_its_asks_keeps_its_account_and_does_not_go_on(
    run: RunConfig, tmp_path: Path, lines: list[dict[str, object]]
) -> None:
    directory = RunDirectory(tmp_path, run)
    for line in lines:
        directory.record(line)
    (tmp_path / "privacy.json").write_text("what it cost", encoding="utf-8")
    with pytest.raises(ConfideError, match=r"events.jsonl lacks '\w+': .* earlier version .* begin another study"):
        RunDirectory.open(tmp_path, run)
    assert (tmp_path / "privacy.json").read_text(encoding="utf-8") == "what it cost"


_FILL = """
import resource, signal, sys
from pathlib import Path
from confide.server.results.run_directory import RunDirectory
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
directory, (soft, hard) = RunDirectory.__new__(RunDirectory), resource.getrlimit(resource.RLIMIT_FSIZE)
directory.path = Path(sys.argv[1])
directory.record({"event": "offered", "declared_units": {"mary": 500}})
size = (directory.path / "events.jsonl").stat().st_size
for event in ({"event": "round_started", "what": "update", "round": 1, "institutions": ["mary"]},
              {"event": "dropped", "round": 1, "reason": "no answer before the deadline"}):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
    try:
        directory.record(event)
    except OSError:
        print("an error")
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
directory.record({"event": "stopped"})
"""


def test_a_line_that_a_full_disk_took_half_of_is_gone_before_the_next(tmp_path: Path) -> None:
    """The server lives on, and says that the run stopped."""
    command = [sys.executable, "-c", _FILL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "an error\n" * 2, done.stderr
    lines = (tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["offered", "stopped"]


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
