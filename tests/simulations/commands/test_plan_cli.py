"""`confide plan`: the figures that it prints, and that it touches no data."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from confide.simulations.studies import plan

Confide = Callable[..., tuple[int, str, str]]
Settings = Callable[..., list[str]]
PLAN = {
    "noise_multiplier",
    "num_steps",
    "sampling_probability",
    "epsilon",
    "epsilon_rdp",
    "target_delta",
    "signal_to_noise_share",
    "bytes_per_client_round",
}


@pytest.fixture
def _no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its three calibrations take seconds."""
    monkeypatch.setattr(plan, "TABLE", ())


@pytest.mark.usefixtures("_no_table")
def test_plan_json_and_the_bytes_that_a_run_reports(confide: Confide, settings: Settings, run_file: Path) -> None:
    for train in ("B", "AB"):
        sets = settings(f"adapter.train={train}")
        code, output, _ = confide("plan", run_file, "--json", *sets)
        assert code == 0
        facts = json.loads(output)
        assert facts.keys() >= PLAN
        assert (facts["num_steps"], facts["sampling_probability"], facts["noise_multiplier"]) == (2, 0.1, 4.0)
        code, output, errors = confide("simulate", run_file, "--json", *sets)
        assert code == 0, errors
        summary = json.loads(output)
        assert facts["bytes_per_client_round"] == summary["bytes_per_client_round"]
        assert set(summary["epsilon"].values()) == {facts["epsilon"]}


@pytest.mark.usefixtures("_no_table")
def test_plan_meets_the_target_and_answers_the_reverse_question(
    confide: Confide, settings: Settings, run_file: Path
) -> None:
    run_file.write_text(
        run_file.read_text(encoding="utf-8").replace("noise_multiplier = 4.0", "target_epsilon = 2.0"), encoding="utf-8"
    )
    facts = json.loads(confide("plan", run_file, "--json")[1])
    assert 1.99 < facts["epsilon"] <= 2.0 < facts["epsilon_rdp"]
    assert 0 < facts["signal_to_noise_share"] <= 1
    noise = facts["noise_multiplier"]
    reverse = json.loads(confide("plan", run_file, "--json", "--noise-multiplier", noise)[1])
    assert reverse["epsilon"] == facts["epsilon"]
    louder = json.loads(confide("plan", run_file, "--json", "--noise-multiplier", 2 * noise)[1])
    assert louder["epsilon"] < facts["epsilon"]


def test_plan_touches_no_data(confide: Confide, settings: Settings, run_file: Path, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").unlink()
    code, output, _ = confide("plan", run_file)
    assert code == 0
    rows = [line.split()[0] for line in output.partition("epsilon   noise")[2].splitlines()[1:]]
    assert rows == ["1", "3", "8"]
    assert {path.name for path in tmp_path.iterdir()} == {"run.toml"}
