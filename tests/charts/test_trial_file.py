"""docker compose itself reads the file of the trial. No engine is needed for that."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from charts.rendered import ROOT, TOOLS

COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"


def _read(path: Path) -> subprocess.CompletedProcess[str]:
    words = [TOOLS / "docker-compose", "--file", path, "config", "--format", "json"]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_compose_takes_the_file() -> None:
    done = _read(COMPOSE)
    assert (done.returncode, done.stderr) == (0, "")
    trial: dict[str, Any] = json.loads(done.stdout)
    assert len(trial["services"]) == 5
    assert {service["image"] for service in trial["services"].values()} == {"confide:trial"}
    assert Path(trial["services"]["server"]["build"]["context"]) == ROOT


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("read_only: true", "readonly: true"),
        ("networks: [south]", "networks: [east]"),
        ("condition: service_healthy", "condition: healthy"),
        ("stop_grace_period: 900s", "stop_grace_period: 900"),
        ("post:/post", "mail:/post"),
    ],
)
def test_compose_refuses_a_file_with_a_mistake(tmp_path: Path, old: str, new: str) -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "compose.yaml").write_text(text.replace(old, new), encoding="utf-8")
    assert _read(tmp_path / "compose.yaml").returncode != 0
