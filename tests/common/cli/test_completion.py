"""What bash completes, by bash itself."""

import shutil
import subprocess

import pytest
from click.testing import CliRunner

from confide.common.cli.completion import words_after
from confide.common.cli.main import COMMANDS, command_of


@pytest.fixture(scope="module")
def script() -> str:
    return CliRunner().invoke(command_of("completion"), ["bash"]).output


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("confide cl", {"client"}),
        ("confide client ledger ", {"show", "export", "verify", "close", "retire"}),
        ("confide client approve my-study --sh", {"--sha256"}),
        ("confide simulate run.toml --out here --base", {"--baselines"}),
        ("confide no-such-command", set()),
    ],
)
def test_bash_completes_commands_and_options(script: str, typed: str, completed: set[str]) -> None:
    words = typed.split(" ")
    given = f'COMP_WORDS=({" ".join(words[:-1])} "{words[-1]}"); COMP_CWORD={len(words) - 1}'
    line = f'{given}; _confide; echo "${{COMPREPLY[*]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{line}"], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == completed


def test_every_command_is_completed_and_every_option(script: str) -> None:
    words = words_after()
    for name in COMMANDS:
        *before, last = name.split()
        assert last in words[" ".join(before)]
        assert "--help" in words[name]
    assert "--sha256" in words["client approve"]
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
