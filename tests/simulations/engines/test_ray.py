"""The same apps on Flower's Ray engine: a process of its own, real Ray."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.kinds import tiny

from confide.common.errors import InputError


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra: pip install '.[ray]'")
@pytest.mark.waits
@pytest.mark.parametrize(
    ("aggregation", "kind"),
    [("fedavg", "text-classification"), ("secure-sum", "text-classification"), ("fedavg", "causal-lm")],
)
def test_institutions_on_ray(run_file: Path, tmp_path: Path, aggregation: str, kind: str) -> None:
    text = run_file.read_text(encoding="utf-8").replace("num_rounds = 2", "num_rounds = 1")
    if aggregation == "secure-sum":
        text = text.replace("num_rounds = 1", f'num_rounds = 1\nmin_clients = 3\naggregation = "{aggregation}"')
        text = text.replace("min_clients = 3", 'min_clients = 3\nweights = "declared"')
    if kind == "causal-lm":
        text = re.sub(r"(?m)^labels = .*$", 'kind = "causal-lm"\nform = "text"', text)
        text = re.sub(r"(?m)^base = .*$", f"base = {json.dumps(str(tiny('llama')))}", text)
    run_file.write_text(text, encoding="utf-8")
    home = tmp_path / "flower"
    environment = {**os.environ, "FLWR_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)

    def confide(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "confide.common.cli.main", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    out = str(tmp_path / "out")
    summary = json.loads(confide("simulate", str(run_file), "--engine", "ray", "--out", out, "--json"))
    assert summary["status"] == "completed"
    assert summary["epsilon"].keys() == {"institution-1", "institution-2", "institution-3"}
    assert summary["score"]["metric"] == {"causal-lm": "perplexity"}.get(kind, "accuracy")
    confide("verify", out)
    for name in ("adapter_model",) if kind == "causal-lm" else ("adapter_model", "head"):
        tensors = load_file(tmp_path / "out" / "adapter" / f"{name}.safetensors")
        assert all(np.isfinite(value).all() for value in tensors.values())
    events = [json.loads(line) for line in (tmp_path / "out" / "events.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "accepted" for event in events) == 3


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from confide.simulations.engines.ray import simulate_on_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install '\.\[ray\]'"):
        simulate_on_ray(None, None)  # type: ignore[arg-type]
