"""A reader that goes before the end, as `head -1` does, costs nothing: silence, and the exit code of the command."""

import os
import subprocess
import sys

import pytest

from confide.common.cli.main import main

_MAIN = "import sys; sys.argv[0] = 'confide'; from confide.common.cli.main import main; main()"
_MUCH = """
import sys
import typer
from confide.common.cli import adapters, main

def init() -> None:
    \"\"\"Write more than a pipe holds, to both.\"\"\"
    for number in range(20_000):
        typer.echo(f"line {number}")
        typer.echo(f"line {number}", err=True)
    print("the end", flush=True)
    if sys.stdin.read():
        raise main.ConfideError("told to nobody")

adapters.init = init
sys.argv = ["confide", "init"]
main.main()
"""


def _without_reader(*arguments: str, both: bool = False, given: str = "") -> tuple[int, str]:
    """A command's exit code and errors; nobody reads its output (nor, with ``both``, its errors)."""
    reading, writing = os.pipe()
    os.close(reading)
    errors = writing if both else subprocess.PIPE
    try:
        done = subprocess.run(arguments, stdout=writing, stderr=errors, input=given, text=True, check=False)
    finally:
        os.close(writing)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize(
    "command", [["--help"], ["--version"], ["client", "--help"], ["init"], ["client", "init"], ["simulate", "--help"]]
)
def test_a_reader_that_has_gone_is_no_error(command: list[str]) -> None:
    assert _without_reader(sys.executable, "-c", _MAIN, *command) == (0, "")


@pytest.mark.parametrize("unbuffered", ["", "-u"])
def test_a_command_that_writes_on_goes_on_to_its_end(unbuffered: str) -> None:
    program = [sys.executable, *unbuffered.split(), "-c", _MUCH]
    assert _without_reader(*program, both=True) == (0, "")
    assert _without_reader(*program, both=True, given="x") == (1, "")


def test_an_error_is_told_to_whoever_still_reads() -> None:
    code, errors = _without_reader(sys.executable, "-c", _MAIN, "simulat")
    assert code == 2
    assert errors.startswith("confide: error: no command 'simulat'; is `confide simulate` meant? `confide --help`")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["simulte", "run.toml"], "no command 'simulte'; is `confide simulate` meant? `confide --help` lists all"),
        (["client", "aprove", "x"], "no command 'client aprove'; is `confide client approve` meant? `confide client "),
        (["client", "ledger", "zzz"], "no command 'client ledger zzz'; `confide client ledger --help` lists all"),
        (["-x", "client"], "no command 'client'; `confide client --help` lists all"),
        (["--foo"], "no command '--foo'; `confide --help` lists all"),
    ],
)
def test_a_command_that_does_not_exist_is_told_with_the_one_that_is_like_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["confide", *typed])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"confide: error: {message}")


def test_what_is_read_comes_whole() -> None:
    done = subprocess.run([sys.executable, "-c", _MUCH], capture_output=True, text=True, check=True, input="")
    assert done.stdout.splitlines()[-1] == "the end"
    assert len(done.stdout.splitlines()) == 20_001 == len(done.stderr.splitlines()) + 1
