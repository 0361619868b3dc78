"""`confide doctor`: what stands in the way of a simulation here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from confide.common.cli import machine
from confide.simulations.commands import doctor_cli

Confide = Callable[..., tuple[int, str, str]]


def test_a_machine_without_obstacles_is_called_so(confide: Confide, run_file: Path) -> None:
    code, output, _ = confide("doctor", run_file)
    assert code == 0
    assert [line.split()[1].rstrip(":") for line in output.splitlines()[:-1]] == [
        "versions",
        "extras",
        "disk",
        "memory",
        "run",
    ]
    assert "GiB on cpu" in output
    assert output.splitlines()[-1].startswith("problems: 0")


def test_a_run_that_cannot_be_read_is_a_problem_and_the_rest_is_told(confide: Confide, tmp_path: Path) -> None:
    code, output, errors = confide("doctor", tmp_path / "none.toml")
    assert code == 1
    assert "problem  run: " in output
    assert "problems: 1" in output
    assert "Traceback" not in output + errors


def test_a_base_that_does_not_fit_is_a_problem(
    confide: Confide, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from confide.common.model import memory

    monkeypatch.setattr(memory, "memory_of", lambda device: memory.Memory(1000, 1000))
    monkeypatch.setattr(machine, "memory", lambda: ("ok", ""))
    code, output, _ = confide("doctor", run_file)
    assert code == 1
    assert "together more than" in output or "use another device" in output


def test_extras_that_are_absent_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_cli.importlib.util, "find_spec", lambda name: None if name == "captum" else object())
    assert doctor_cli._extras() == (
        "ok",
        "not installed: explain (predict --explain); pip install '.[EXTRA]' in a checkout of Confide adds one",
    )
