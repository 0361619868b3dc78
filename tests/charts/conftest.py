"""What `make deploy-check` tests: the bundle as INSTALL.txt installs it, in a place without a network."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from charts.rendered import ROOT

BUNDLE, OFFLINE = ROOT / "build" / "bundle", ROOT / "build" / "offline"


def install_commands() -> list[str]:
    """The commands of INSTALL.txt that install, for a folder of ours in place of /opt/confide."""
    text = (BUNDLE / "INSTALL.txt").read_text(encoding="utf-8")
    found: list[str] = re.findall(r"^    sudo (.*/opt/confide.*)$", text, flags=re.MULTILINE)
    installs = [command for command in found if "-m venv" in command or "pip install" in command]
    return [command.replace("/opt/confide", str(OFFLINE)) for command in installs]


def bare() -> dict[str, str]:
    """This environment without what it tells pip, and without our own packages."""
    kept = {key: text for key, text in os.environ.items() if not key.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV"))}
    return {**kept, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


@pytest.fixture(scope="session")
def environment() -> Path:
    """The folder into which the two commands of the bundle have installed Confide."""
    shutil.rmtree(OFFLINE, ignore_errors=True)
    commands = install_commands()
    assert len(commands) == 2
    for command in commands:
        done = subprocess.run(command, shell=True, cwd=BUNDLE, env=bare(), capture_output=True, text=True, check=False)  # noqa: S602
        assert done.returncode == 0, f"{command}: {done.stderr}"
    return OFFLINE
