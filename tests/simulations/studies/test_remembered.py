"""What a study's designer has computed before: the same to the digit, and of no weight where privacy is decided."""

import ast
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from confide.common.config.run import lock
from confide.common.errors import InputError
from confide.common.privacy import accounting
from confide.common.privacy.plan import PrivacyPlan
from confide.simulations.studies import remembered
from confide.simulations.studies.plan import plan_facts
from confide.simulations.studies.remembered import Checked, Remembered

ROOT = Path(__file__).parents[3]
PLAN = PrivacyPlan("group", 0.2, 20, 2137, 0.3, "abadi", 1.6254, 1e-5, head_weight=0.7)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "confide" / "accounting.json"


def _nothing_is_computed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(remembered, "_accounting", lambda: pytest.fail("it is computed again"))


def _poison(path: Path, value: object) -> None:
    path.write_text(json.dumps(dict.fromkeys(json.loads(path.read_bytes()), value)), encoding="utf-8")


def _all(by: Any) -> list[float]:
    calibrated = by.calibrate(PLAN, 3.0)
    return [
        calibrated.noise_multiplier,
        by.epsilon(calibrated),
        by.epsilon_rdp(calibrated),
        by.signal_to_noise_share(calibrated),
        accounting.round_up(by.attack_true_positive_rate(calibrated, 0.01)),
    ]


@pytest.mark.parametrize(
    ("shape", "target", "noise", "epsilon"),
    [
        ((0.2, 20, 0), 3.0, 1.6254, 3.0),
        ((0.2, 20, 0), 0.3, 10.3596, 0.3),
        ((0.1, 200, 0), 0.1, 43.5952, 0.1),
        ((0.5, 20, 0), 8.0, 1.5526, 7.9996),
        ((1.0, 40, 0), 8.0, 3.7962, 8.0),
        ((0.1, 40, 8), 3.0, 1.3332, 2.9999),
    ],
)
def test_noise_and_epsilon_are_the_digits_of_before_there_was_a_memory(
    path: Path, shape: tuple[float, int, int], target: float, noise: float, epsilon: float
) -> None:
    """A locked run that another version has locked must come out the same, or its hash would change."""
    probability, steps, releases = shape
    plan = replace(PLAN, sampling_probability=probability, num_steps=steps, noise_multiplier=1.0)
    plan = replace(plan, validation_releases=releases, validation_noise_multiplier=10.0)
    for by in (Remembered(), Remembered(), Checked()):
        found = by.calibrate(plan, target)
        assert (found.noise_multiplier, by.epsilon(found)) == (noise, epsilon)
        assert found == replace(plan, noise_multiplier=noise)


def test_what_was_computed_is_the_same_from_memory_and_takes_no_accounting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _all(Remembered())
    assert first == _all(accounting)
    with monkeypatch.context() as patch:
        _nothing_is_computed(patch)
        assert _all(Remembered()) == first
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "change",
    [
        {"sampling_probability": 0.2001},
        {"num_steps": 21},
        {"target_delta": 1.1e-5},
        {"noise_multiplier": 1.6255},
        {"validation_releases": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_enters_the_account_is_part_of_the_key(path: Path, change: dict[str, Any]) -> None:
    Remembered().epsilon(PLAN)
    assert Remembered().epsilon(replace(PLAN, **change)) == accounting.epsilon(replace(PLAN, **change))


def test_other_code_or_libraries_remember_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = Remembered().epsilon(PLAN)
    _poison(path, 0.1)
    assert Remembered().epsilon(PLAN) == 0.1
    monkeypatch.setattr(remembered, "_computed_by", lambda: ["another"])
    assert Remembered().epsilon(PLAN) == computed


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"null"])
def test_a_damaged_file_is_no_memory(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert Remembered().epsilon(PLAN) == accounting.epsilon(PLAN)
    assert len(json.loads(path.read_bytes())) == 1


@pytest.mark.parametrize("value", [0, -1.0, True, "1.0", None, [1.0], float("nan"), float("inf")])
def test_a_value_that_is_none_is_computed_again(path: Path, value: object) -> None:
    computed = Remembered().epsilon(PLAN)
    _poison(path, value)
    assert Remembered().epsilon(PLAN) == computed


def test_a_folder_that_cannot_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert Remembered().epsilon(PLAN) == accounting.epsilon(PLAN)


@pytest.mark.parametrize("noise", [pytest.param(0.1, marks=pytest.mark.waits), 1.6253])
def test_less_noise_that_somebody_has_written_into_the_file_trains_nobody(path: Path, noise: float) -> None:
    honest = Checked().calibrate(PLAN, 3.0)
    _poison(path, noise)
    assert Remembered().calibrate(PLAN, 3.0).noise_multiplier == noise
    assert Checked().calibrate(PLAN, 3.0) == honest
    assert Checked().epsilon(PLAN) == accounting.epsilon(PLAN)


def test_no_institution_server_or_verifier_asks_the_memory(make_run: Any, path: Path) -> None:
    """Who does is named here; and of these `plan` trains nobody, and `simulate` and `methods` check."""
    files = [file for folder in ("common", "client", "server", "simulations") for file in (ROOT / folder).rglob("*.py")]
    asking = {
        str(file.relative_to(ROOT))
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "confide.simulations.studies.remembered"
    }
    assert asking == {
        *("simulations/commands/cli.py", "simulations/studies/plan.py", "simulations/commands/plan_cli.py"),
        "simulations/interface/calls.py",
        *("simulations/commands/audit_cli.py", "simulations/benchmarks/audits/study.py"),  # what is audited is checked
        "simulations/benchmarks/audits/members.py",
        "simulations/benchmarks/scores/methods.py",
        "simulations/benchmarks/round.py",
        "simulations/benchmarks/scores/scenarios.py",
    }
    run = make_run(privacy={"noise_multiplier": None, "target_epsilon": 3.0})
    honest = lock(run, "a" * 64)
    lock(run, "a" * 64, Checked())
    _poison(path, 0.2)
    assert lock(run, "a" * 64) == lock(run, "a" * 64, Checked()) == honest


def test_a_plan_whose_validation_counts_alone_pass_a_table_target_says_so(make_run: Any, path: Path) -> None:
    """It was an error, and the run could not be planned at all."""
    federation, evaluation = {"num_rounds": 100}, {"validation_every": 5}
    run = lock(make_run(federation=federation, evaluation=evaluation, privacy={"noise_multiplier": 4.0}), "a" * 64)
    rows = {row["epsilon"]: row["noise_multiplier"] for row in plan_facts(run)["table"]}
    assert rows[1.0] is None
    assert rows[8.0] is not None
    impossible = make_run(
        federation=federation,
        evaluation=evaluation,
        privacy={"noise_multiplier": None, "target_epsilon": 1.0},
    )
    with pytest.raises(InputError, match="20 validation releases alone"):
        lock(impossible, "a" * 64, Remembered())
