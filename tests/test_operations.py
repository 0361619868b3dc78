"""The systemd units and the Dockerfile say what docs/deployment.md promises; nobody can start them in a test."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from confide.client.commands import cli as client_cli
from confide.server.commands import cli as server_cli

ROOT = Path(__file__).parent.parent
UNITS = sorted((ROOT / "docs" / "systemd").glob("*.service"))
STARTS = {"confide-client": ("client", client_cli.start), "confide-server": ("server", server_cli.start)}
Unit = dict[tuple[str, str], list[str]]


def _read(text: str) -> Unit:
    """Values by section and key; a key may stand several times, which configparser refuses."""
    values: Unit = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            assert re.fullmatch("[A-Z][A-Za-z]+", key), line
            values.setdefault((section, key), []).append(value)
    return values


@pytest.fixture(params=UNITS, ids=lambda path: path.stem)
def unit(request: pytest.FixtureRequest) -> tuple[str, Unit]:
    """Name and values of a unit."""
    return request.param.stem, _read(request.param.read_text(encoding="utf-8"))


def test_there_is_a_unit_for_each_end() -> None:
    assert [path.stem for path in UNITS] == sorted(STARTS)


def test_a_unit_starts_again_for_ever_and_ends_by_sigterm(unit: tuple[str, Unit]) -> None:
    """StartLimitIntervalSec counts in [Unit] only; systemd passes over it elsewhere."""
    values = unit[1]
    assert values["Unit", "StartLimitIntervalSec"] == ["0"]
    assert values["Service", "Restart"] == ["always"]
    assert values["Service", "RestartSec"] == ["10"]
    assert values["Service", "KillSignal"] == ["SIGTERM"]
    assert values["Service", "KillMode"] == ["mixed"], "or the child that evaluates would die before its server"
    assert values["Install", "WantedBy"] == ["multi-user.target"]


def test_a_unit_has_no_key_twice(unit: tuple[str, Unit]) -> None:
    assert {key: found for key, found in unit[1].items() if len(found) > 1} == {}


def test_a_client_has_time_to_finish_its_round(unit: tuple[str, Unit]) -> None:
    [seconds] = unit[1]["Service", "TimeoutStopSec"]
    assert int(seconds) >= (600 if unit[0] == "confide-client" else 30)


def test_a_unit_runs_without_rights_and_can_write_its_folder_only(unit: tuple[str, Unit]) -> None:
    values = unit[1]
    assert values["Service", "User"][0] not in ("", "root", "0")
    expected = {"NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes"}
    for key, value in {**expected, "CapabilityBoundingSet": "", "UMask": "0077", "StateDirectoryMode": "0700"}.items():
        assert values["Service", key] == [value], key
    [folder] = values["Service", "WorkingDirectory"]
    assert values["Service", "ReadWritePaths"][0].split()[0] == folder
    assert folder == f"/var/lib/{values['Service', 'StateDirectory'][0]}"


def test_a_unit_leaves_torch_what_it_needs(unit: tuple[str, Unit]) -> None:
    """torch makes code while it runs; a client's GPU is a device."""
    keys = {key for _, key in unit[1]}
    assert "MemoryDenyWriteExecute" not in keys
    assert unit[0] != "confide-client" or not {"PrivateDevices", "DevicePolicy", "ProtectClock"} & keys


def test_a_unit_starts_a_command_that_exists_with_these_options(unit: tuple[str, Unit]) -> None:
    end, function = STARTS[unit[0]]
    [line] = unit[1]["Service", "ExecStart"]
    program, *words = shlex.split(line)
    assert Path(program).is_absolute()
    assert (Path(program).name, words[:2]) == ("confide", [end, "start"])
    app = typer.Typer(add_completion=False)
    app.command()(function)
    context = typer.main.get_command(app).make_context("start", words[2:])  # raises for an unknown option
    [folder] = unit[1]["Service", "WorkingDirectory"]
    assert [str(path).startswith(f"{folder}/") for path in context.params.values()] == [True]


def _instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_is_built_on_one_fixed_version() -> None:
    images = [rest.split()[0] for word, rest in _instructions() if word == "FROM"]
    assert len(set(images)) == 1
    assert re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+-[a-z-]+", images[0]), "a version to the patch"


def test_the_image_runs_confide_as_a_user_without_rights() -> None:
    words = [word for word, _ in _instructions()]
    last_stage = _instructions()[max(index for index, word in enumerate(words) if word == "FROM") :]
    order = [word for word, _ in last_stage]
    [user] = [rest for word, rest in last_stage if word == "USER"]
    assert user not in ("root", "0")
    assert any(word == "RUN" and re.search(rf"useradd .*\b{user}\b", rest) for word, rest in last_stage)
    assert order.index("USER") < order.index("VOLUME") < order.index("ENTRYPOINT")
    assert ("ENTRYPOINT", '["confide"]') in last_stage
    assert "RUN" not in order[order.index("USER") :], "nothing is installed where the user could change it"


def test_the_image_installs_the_checkout_constrained_and_fetches_nothing_else() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "ADD" not in [word for word, _ in _instructions()]
    assert "://" not in text
    installs = [rest for word, rest in _instructions() if word == "RUN" and "pip install" in rest]
    assert len(installs) == 1
    assert "-c /tmp/constraints.txt" in installs[0]


def _sources() -> set[str]:
    copies = [rest.split() for word, rest in _instructions() if word == "COPY"]
    return {source for words in copies if not words[0].startswith("--from") for source in words[:-1]}


def test_all_that_the_image_copies_exists_and_nothing_else_reaches_the_build() -> None:
    """.dockerignore lets through exactly what is copied: keys, ledgers and data of a checkout stay out."""
    assert [source for source in sorted(_sources()) if not (ROOT / source).exists()] == []
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == _sources()


def test_the_image_copies_all_that_the_wheel_needs() -> None:
    packages = re.findall(r'"confide\.(\w+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert _sources() == {*packages, "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}


_INITS = sorted(
    line.strip()
    for path in ("deploy/helm/server/templates/server.yaml", "deploy/compose/compose.yaml")
    for line in (ROOT / path).read_text(encoding="utf-8").splitlines()
    if "confide server init" in line
)
_DIES = 'mkdir "$3" && touch "$3/half" && test -e disk && touch "$3/server.toml"'


def _shell(command: str, folder: Path, environment: dict[str, str]) -> int:
    return subprocess.run(["sh", "-c", command], cwd=folder, env=environment, check=False).returncode


def test_chart_and_trial_make_the_server_s_folder_whole_or_not_at_all(tmp_path: Path) -> None:
    """A pod that is moved, a disk that is full: `server init` refuses a folder that is not empty, for ever."""
    confide = tmp_path / "bin" / "confide"
    confide.parent.mkdir()
    confide.write_text(f"#!/bin/sh\n{_DIES}\n", encoding="utf-8")
    confide.chmod(0o755)
    assert len(_INITS) == 2
    for number, command in enumerate(_INITS):
        home = tmp_path / str(number)
        home.mkdir()
        environment = {"PATH": f"{confide.parent}:{os.environ['PATH']}"}
        for there in ([False], [True, True]):
            if there[0]:
                (home / "disk").touch()
            codes = [_shell(command, home, environment) for _ in there]
            assert [code == 0 for code in codes] == there
            assert (home / "fl" / "server.toml").exists() == there[0]


def test_the_charts_share_their_parts_to_the_byte() -> None:
    """Helm takes no file from outside a chart, so that there are two copies."""
    server, institution = (
        (ROOT / "deploy/helm" / end / "templates/_parts.tpl").read_bytes() for end in ("server", "institution")
    )
    assert server == institution
