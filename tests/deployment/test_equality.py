"""A run by real processes over TLS is the run that `simulate` does; and nobody but a test can choose its noise."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel
from safetensors.numpy import load_file
from support.deployment import Deployment, deployed
from support.kinds import KINDS, file_of_kind, records_of_kind
from support.sites import make_records
from support.zygote import Zygote

from confide.client.config import SiteConfig
from confide.common.config.run import RunConfig

ROOT = Path(__file__).parents[2]
LAUNCHER = Path(__file__).with_name("launcher.py")
NAMES = ("mary", "jude")
ROUNDS = 3
RUN = f"""
[study]
name = "small"
[model]
base = "BASE"
[task]
[federation]
num_rounds = {ROUNDS}
min_clients = {len(NAMES)}
deadline_seconds = 100.0
[local]
nominal_units = 20
sampling_probability = 0.5
[privacy]
noise_multiplier = 1.0
target_delta = 1e-3
"""


@pytest.fixture(params=["causal-lm, completion" if kind == "causal-lm" else kind for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def _records(kind: str) -> list[dict[str, Any]]:
    return make_records(40) if kind == "text-classification" else records_of_kind(kind, 40)


@pytest.fixture
def deployment(tmp_path: Path, zygote: Zygote, kind: str) -> Iterator[Deployment]:
    """A server and two institutions, each with a twin: the same records and secrets in another folder."""
    with deployed(tmp_path, zygote) as made:
        for number, name in enumerate(NAMES):
            made.add(name, _records(kind)[number::2])
            shutil.copytree(tmp_path / name, tmp_path / "twin" / name)
        yield made


def _launch(deployment: Deployment, *arguments: object) -> subprocess.Popen[bytes]:
    with (deployment.folder / "launched.log").open("ab") as log:
        command = [sys.executable, str(LAUNCHER), *map(str, arguments)]
        return subprocess.Popen(command, cwd=deployment.folder, env=deployment.environment, stdout=log, stderr=log)


def _adapter(run_directory: Path, number: int = ROUNDS) -> dict[str, Any]:
    """The global adapter after a round."""
    return load_file(run_directory / "rounds" / f"{number:04d}" / "adapter.safetensors")


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def _verify(deployment: Deployment, shown: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "confide.common.cli.main", "verify", shown]
    told = subprocess.run(command, cwd=deployment.folder, env=deployment.environment, capture_output=True, check=False)
    return told.returncode, told.stdout.decode()


@pytest.mark.waits
def test_real_processes_and_simulate_reach_one_adapter_with_the_same_coins(
    deployment: Deployment, base_folder: Path, kind: str
) -> None:
    """Such coins are a test's, and `confide verify` rejects the ledger; it says nothing against the adapter."""
    run_file = deployment.folder / "run.toml"
    run_file.write_text(file_of_kind(RUN.replace("BASE", str(base_folder)), kind), encoding="utf-8")
    deployment.start_server()
    for number, name in enumerate(NAMES):
        deployment.processes[name] = _launch(deployment, "client", f"{name}/site.toml", number, len(NAMES))
    run = deployment.folder / "srv" / "runs" / deployment.propose(run_file)
    assert deployment.reaches(run.name, event="given_out")["missing"] == []
    twins = [part for name in NAMES for part in ("--site", f"twin/{name}/site.toml")]
    deployment.processes["simulate"] = _launch(deployment, "simulate", run_file, *twins, "--out", "simulated")
    assert deployment.processes["simulate"].wait(timeout=300) == 0, deployment.log("launched")
    assert _apart(_adapter(run), _adapter(deployment.folder / "simulated")) <= 1e-6
    assert _apart(_adapter(run), _adapter(run, ROUNDS - 1)) > 1e-4, "a round changes the adapter by more than that"
    assert _verify(deployment, str(run))[0] == 0
    for folder in (*NAMES, *(f"twin/{name}" for name in NAMES)):
        assert {row["coins"] for row in deployment.rows(folder) if row["kind"] == "reserve"} == {"test"}
    deployment.confide("client", "ledger", "export", "--site", f"{NAMES[0]}/site.toml", "--out", "ledger.jsonl")
    for shown in ("ledger.jsonl", f"{NAMES[0]}/state/ledger.db"):
        code, output = _verify(deployment, shown)
        assert code == 1
        assert "the noise of a test" in output


def _calls(name: str) -> list[ast.Call]:
    """Every call of a function or class of this name in what is shipped."""
    files = [path for folder in ("common", "client", "server", "simulations") for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    return [call for call in calls if name in (getattr(call.func, "id", ""), getattr(call.func, "attr", ""))]


def _fields(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield name
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from _fields(part)


def test_no_flag_and_no_variable_of_the_installed_program_reaches_the_coins() -> None:
    """Coins enter by `ClientProcess(coins=...)` alone, and nothing that is shipped makes one with coins."""
    assert [ast.unparse(call) for call in _calls("serve") if "site" in ast.unparse(call)] == ["serve(site)"]
    made = {ast.unparse(call) for call in _calls("ClientProcess") if not ast.unparse(call.func).startswith("httpx.")}
    assert made == {"ClientProcess()", "ClientProcess(now=clock.now)"}
    assert {ast.unparse(call) for call in _calls("fresh")} <= {"Coins.fresh()"}
    for path in [*(ROOT / "client").rglob("*.py"), *(ROOT / "common" / "privacy").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert "environ" not in text, path
        assert "getenv" not in text, path


@pytest.mark.parametrize("model", [SiteConfig, RunConfig])
def test_no_key_reaches_the_coins(model: type[BaseModel]) -> None:
    names = set(_fields(model))
    assert {"name", "clip_norm"} & names, "the walk over sections finds keys"
    assert [name for name in names if "coin" in name or "random" in name or "entropy" in name] == []
    assert [name for name in names if "seed" in name] == (["seed"] if model is RunConfig else [])
    assert model.model_config["extra"] == "forbid"
