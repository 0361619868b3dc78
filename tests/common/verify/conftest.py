"""An exported ledger and run directories, all whole, for `confide verify`."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.sum_runs import SumRun, make_sum_run
from support.verifying import WHOLE_SPENT, Row, as_lines, asked_again, chained, first_line

from confide.common.config.run import RunConfig, make_plan
from confide.common.privacy.plan import PrivacyPlan
from confide.server.results.run_directory import RunDirectory
from confide.server.rounds.roster import Institution

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Path]:
    def write(bodies: list[Row], header: Row | None = None) -> Path:
        path = tmp_path / "ledger.jsonl"
        path.write_text(as_lines(header or first_line(WHOLE_SPENT), *chained(bodies)), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun) -> Path:
    run = make_run(
        privacy={"noise_multiplier": 2.0},
        federation={"num_rounds": 4},
        local={"steps": 2},
        evaluation={"validation_every": 2},
    )
    institutions = [
        Institution("st-mary", 500, num_steps=8, num_releases=2),
        Institution("late", 90, num_steps=4, num_releases=1),
    ]
    directory = RunDirectory(tmp_path_factory.mktemp("run"), run)
    for number in range(1, 5):
        names = ["st-mary", "late"] if number > 2 else ["st-mary"]
        directory.record(asked_again("update", number, *names))
        if number % 2 == 0:
            directory.record(asked_again("validation", number, *names))
        for name in names:
            directory.record({"event": "accepted", "round": number, "institution": name})
        directory.record({"event": "accepted", "round": number, "institution": "st-mary"})  # sent again: no new steps
        steps = {"st-mary": 2 * number, "late": max(2 * number - 4, 0)}
        releases = {"st-mary": number // 2, "late": number // 4}
        directory.record({"event": "round", "round": number, "num_steps": steps, "num_releases": releases})
    directory.write_privacy("completed", run, institutions, simulated=False)
    plan = make_plan(run, 500)
    assert isinstance(plan, PrivacyPlan)
    assert plan.validation_releases == 2
    return directory.path


@pytest.fixture
def folder(run_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


@pytest.fixture(scope="session")
def whole_sum_run(tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun, base_folder: Path) -> SumRun:
    return make_sum_run(tmp_path_factory.mktemp("sums"), make_run, base_folder)


@pytest.fixture
def sum_run(whole_sum_run: SumRun, tmp_path: Path) -> SumRun:
    return replace(whole_sum_run, folder=Path(shutil.copytree(whole_sum_run.folder, tmp_path / "sums")))
