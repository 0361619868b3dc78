"""The command's table: instant help, one line for an error."""

import errno
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from confide.common.cli import main as module
from confide.common.durable import replace_durably
from confide.common.errors import ConfideError, InputError, PolicyError

HEAVY = ("torch", "flwr", "transformers", "opacus", "datasets", "numpy", "ray")
_LOADED = f"""
import sys
sys.argv = ["confide", *sys.argv[1:]]
from confide.common.cli.main import main
try:
    main()
except SystemExit as stopped:
    assert not stopped.code, stopped.code
print("LOADED", [name for name in {HEAVY!r} if name in sys.modules])
"""


def _call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["confide", *arguments])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("command", ["", "simulate", "plan", "predict", "client", "client doctor"])
def test_help_imports_nothing_heavy(command: str) -> None:
    arguments = [*command.split(), "--help"]
    done = subprocess.run([sys.executable, "-c", _LOADED, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_init_imports_nothing_heavy_and_prints_a_file() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED, "init"], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert "[study]" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help_shows_every_command(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(monkeypatch, *arguments) == 0
    text = capsys.readouterr().out
    for name, (_, what) in module.COMMANDS.items():
        assert f"  {name} " in text
        assert what in text


@pytest.mark.parametrize("name", module.COMMANDS)
def test_every_command_is_importable_and_documented(name: str) -> None:
    place, _, function = module.COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(place), function)
    assert callable(command)
    assert inspect.getdoc(command)


@pytest.mark.parametrize("name", module.COMMANDS)
def test_help_says_what_every_argument_and_option_means(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """typer and click together lost what arguments mean."""
    place, _, function = module.COMMANDS[name][0].partition(":")
    hints = get_type_hints(getattr(importlib.import_module(place), function), include_extras=True)
    assert _call(monkeypatch, *name.split(), "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for hint in hints.values():
        for note in getattr(hint, "__metadata__", ()):
            assert note.help, name
            assert " ".join(note.help.split()) in text
    assert "\\[" not in text, "brackets escaped for a library that is not used"
    assert text.count("rguments:") <= 1


def test_an_unknown_command_is_bad_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _call(monkeypatch, "simulat") == 2
    output, errors = capsys.readouterr()
    assert not output
    assert len(errors.splitlines()) == 1
    assert "'simulat'" in errors
    assert "simulate" in errors


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("confide 0.")


@pytest.mark.parametrize(("kind", "code"), [(ConfideError, 1), (InputError, 2), (PolicyError, 3)])
def test_an_error_of_ours_is_one_line_and_an_exit_code(
    kind: type[ConfideError], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise kind("thing = value: rule; remedy")

    monkeypatch.setattr("confide.common.cli.adapters.init", fail)
    assert _call(monkeypatch, "init") == code
    assert capsys.readouterr() == ("", "confide: error: thing = value: rule; remedy\n")


def test_a_full_disk_anywhere_is_one_line_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of a write, or of waiting for the disk, names no file by itself."""

    def fail() -> None:
        replace_durably(tmp_path / "file", b"content")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("confide.common.cli.adapters.init", fail)
    monkeypatch.setattr(os, "fsync", full)
    assert _call(monkeypatch, "init") == 1
    assert capsys.readouterr() == ("", f"confide: error: {tmp_path / 'file'}: No space left on device\n")
    assert not list(tmp_path.iterdir()), "who tries again and again must not fill the disk"


def test_ctrl_c_anywhere_is_130_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("confide.common.cli.adapters.init", interrupt)
    assert _call(monkeypatch, "init") == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["simulate", "--no-such-option"], ["simulate", "--clients", "0"], ["predict"]])
def test_bad_options_are_bad_input(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(monkeypatch, *arguments) == 2
    output, errors = capsys.readouterr()
    assert not output
    assert "Traceback" not in errors


def test_another_flower_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from confide.common import flower

    monkeypatch.setattr(flower.importlib.metadata, "version", lambda name: "1.43.0")
    with pytest.raises(ConfideError, match=r"flwr 1\.43\.0 .*pip install"):
        flower.prepare()
