"""Runs that stop before their end leave a directory that says where, and no result."""

import functools
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Message
from support.json_files import read_json, read_lines
from support.misbehaving import dropout

from confide.simulations.engines.federation import simulate
from confide.simulations.engines.grid import Answer, Faults, no_faults
from confide.simulations.studies import study

Confide = Callable[..., tuple[int, str, str]]
Settings = Callable[..., list[str]]


def _with_faults(monkeypatch: pytest.MonkeyPatch, faults: Faults) -> None:
    monkeypatch.setattr(study, "simulate", functools.partial(simulate, faults=faults))


def _interrupt_in_round_2(message: Message, answer: Answer) -> tuple[float, Message | None]:
    if (message.metadata.group_id, message.metadata.dst_node_id) == ("2", 1001):
        raise KeyboardInterrupt
    return no_faults(message, answer)


def _says_where_it_stopped(out: Path, status: str, after_round: int) -> None:
    events = read_lines(out / "events.jsonl")
    assert events[-1]["event"] == status
    assert events[-1]["after_round"] == after_round
    privacy = read_json(out / "privacy.json")
    assert privacy["status"] == status
    assert not (out / "adapter").exists()
    assert not (out / "report.html").exists()


def test_ctrl_c_leaves_a_directory_that_says_where_it_stopped(
    confide: Confide, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_faults(monkeypatch, _interrupt_in_round_2)
    out = tmp_path / "out"
    code, output, errors = confide("simulate", run_file, "--out", out, "--json")
    assert (code, output) == (130, "")
    assert "interrupted" in errors
    assert "Traceback" not in errors
    _says_where_it_stopped(out, "interrupted", 1)
    assert {row["num_steps"] for row in read_json(out / "privacy.json")["institutions"]} == {2}, (
        "what was asked is spent"
    )
    assert [path.name for path in (out / "rounds").iterdir()] == ["0001"]


@pytest.mark.parametrize("place", ["studies.study.start", "studies.study.run_baselines"])
def test_ctrl_c_outside_the_rounds_is_told_too(
    place: str, confide: Confide, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"confide.simulations.{place}", interrupt)
    out = tmp_path / "out"
    code, _, _ = confide("simulate", run_file, "--out", out, "--baselines", "--quiet")
    assert code == 130
    assert read_lines(out / "events.jsonl")[-1]["event"] == "interrupted"
    assert read_json(out / "privacy.json")["status"] == "interrupted"
    assert not (out / "adapter").exists()


@pytest.mark.parametrize("place", ["common.export.write.export_adapter", "simulations.studies.reported.write_report"])
def test_ctrl_c_while_results_are_written_does_not_look_finished(
    place: str, confide: Confide, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"confide.{place}", interrupt)
    out = tmp_path / "out"
    assert confide("simulate", run_file, "--out", out, "--quiet")[0] == 130
    assert read_json(out / "privacy.json")["status"] == "interrupted"
    assert read_lines(out / "events.jsonl")[-1]["event"] == "interrupted"


def test_three_rounds_without_quorum_stop_the_run(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        late = int(message.metadata.group_id) > 1 and message.metadata.dst_node_id == 1000
        return (dropout if late else no_faults)(message, answer)

    _with_faults(monkeypatch, fault)
    out = tmp_path / "out"
    sets = settings("federation.num_rounds=9", "federation.min_clients=3")
    code, _, errors = confide("simulate", run_file, "--out", out, "--quiet", *sets)
    assert code == 1
    assert len(errors.splitlines()) == 1
    assert "round 4" in errors
    assert "federation.min_clients = 3" in errors
    _says_where_it_stopped(out, "stopped", 3)
    assert {row["num_steps"] for row in read_json(out / "privacy.json")["institutions"]} == {4}
    assert [event["round"] for event in read_lines(out / "events.jsonl") if event["event"] == "no_quorum"] == [2, 3, 4]


def test_a_run_in_which_no_round_had_a_quorum_is_not_completed(
    confide: Confide, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        return (no_faults if message.metadata.group_id == "0" else dropout)(message, answer)

    _with_faults(monkeypatch, fault)
    out = tmp_path / "out"
    code, _, errors = confide("simulate", run_file, "--out", out, "--quiet")
    assert code == 1, errors
    _says_where_it_stopped(out, "stopped", 2)


def test_sigint_to_the_command(run_file: Path, settings: Settings, tmp_path: Path) -> None:
    """The real thing: a process, a signal, exit code 130."""
    out = tmp_path / "out"
    sets = settings("federation.num_rounds=5000", "evaluation.every=1", "simulation.max_records=10")
    command = [sys.executable, "-m", "confide.common.cli.main", "simulate", str(run_file), "--out", str(out), *sets]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("round 1/"):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert len(errors.splitlines()) == 1
    after = read_lines(out / "events.jsonl")[-1]["after_round"]
    assert 1 <= after < 5000
    _says_where_it_stopped(out, "interrupted", after)
