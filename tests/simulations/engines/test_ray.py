"""The same apps on Flower's Ray engine: a process of its own, real Ray."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.kinds import KINDS, file_of_kind, records_of_kind, task_of, writes

from confide.common.errors import InputError

Confide = Callable[..., str]
WITH_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra: pip install '.[ray]'")


@pytest.fixture
def confide(tmp_path: Path) -> Confide:
    """``confide("verify", "out")``: the standard output of a command in a process of its own."""
    environment = {**os.environ, "FLWR_HOME": str(tmp_path / "flower"), "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)

    def call(*arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "confide.common.cli.main", *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@WITH_RAY
@pytest.mark.waits
@pytest.mark.parametrize(
    ("aggregation", "kind"),
    [("fedavg", "text-classification"), ("secure-sum", "text-classification"), ("fedavg", "causal-lm, text")],
)
def test_institutions_on_ray(confide: Confide, run_file: Path, tmp_path: Path, aggregation: str, kind: str) -> None:
    text = run_file.read_text(encoding="utf-8")
    if aggregation == "secure-sum":
        text = text.replace("num_rounds = 2", f'num_rounds = 2\nmin_clients = 3\naggregation = "{aggregation}"')
        text = text.replace("min_clients = 3", 'min_clients = 3\nweights = "declared"')
    run_file.write_text(file_of_kind(text, kind), encoding="utf-8")
    out = tmp_path / "out"
    summary = json.loads(confide("simulate", run_file, "--engine", "ray", "--out", out, "--json"))
    assert summary["status"] == "completed"
    assert summary["epsilon"].keys() == {"institution-1", "institution-2", "institution-3"}
    assert summary["score"]["metric"] == task_of(kind).headline
    confide("verify", out)
    assert all(np.isfinite(value).all() for value in _values(out).values())
    assert ("head" in {name.partition("/")[0] for name in _values(out)}) != writes(kind)
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "accepted" for event in events) == 6, "whichever worker the second round reaches"


@WITH_RAY
@pytest.mark.waits
@pytest.mark.parametrize("kind", sorted({*KINDS} - {"text-classification", "causal-lm"}))  # which run above
def test_ray_and_one_process_reach_one_adapter(confide: Confide, run_file: Path, tmp_path: Path, kind: str) -> None:
    """Without privacy, and with every unit drawn, nothing of a round is left to chance."""
    rows = [{**row, "site": f"clinic {number % 3}"} for number, row in enumerate(records_of_kind(kind, 60))]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    text = file_of_kind(run_file.read_text(encoding="utf-8"), kind).replace("noise_multiplier = 4.0", 'unit = "none"')
    run_file.write_text(text.replace("[local]", "[local]\nsampling_probability = 1.0"), encoding="utf-8")
    summaries = {
        engine: json.loads(confide("simulate", run_file, "--engine", engine, "--out", tmp_path / engine, "--json"))
        for engine in ("ray", "in-process")
    }
    ours, theirs = (_values(tmp_path / engine) for engine in summaries)
    assert ours.keys() == theirs.keys()
    assert max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours) <= 1e-6
    assert max(float(np.abs(ours[name]).max()) for name in ours if "lora_B" in name) > 1e-4, "they begin as zeros"
    for name in ("status", "epsilon", "num_steps", "bytes_per_client_round"):
        assert summaries["ray"][name] == summaries["in-process"][name]
    score, expected = (summary["score"] for summary in summaries.values())
    assert score["metric"] == expected["metric"] == task_of(kind).headline
    assert score["per_institution"] == pytest.approx(expected["per_institution"], rel=1e-3)


def _values(out: Path) -> dict[str, Any]:
    """The tensors of a run's adapter, and of its head if it has one."""
    files = sorted((out / "adapter").glob("*.safetensors"))
    return {f"{path.stem}/{name}": value for path in files for name, value in load_file(path).items()}


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from confide.simulations.engines.ray import simulate_on_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install '\.\[ray\]'"):
        simulate_on_ray(None, None)  # type: ignore[arg-type]
