"""`confide simulate`: the results that a run prints and leaves behind."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.pld import PLDAccountant
from support.json_files import read_json, read_lines

from confide.common.config.run import RunConfig, check, load_run, make_plan
from confide.common.privacy.accounting import epsilon
from confide.server.results.report_facts import epsilon_of
from confide.simulations.studies import begun, prepared

Confide = Callable[..., tuple[int, str, str]]
Settings = Callable[..., list[str]]
SUMMARY = {
    "run_dir",
    "status",
    "num_rounds",
    "seconds",
    "score",
    "epsilon",
    "target_delta",
    "bytes_per_client_round",
    "num_steps",
    "noise_multiplier",
}
NAMES = ["institution-1", "institution-2", "institution-3"]


def test_json_is_one_object_and_the_directory_is_complete(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sets = settings("federation.num_rounds=4", "evaluation.every=2", "local.steps=2")
    code, output, progress = confide("simulate", run_file, "--out", out, "--json", *sets)
    assert code == 0
    summary = json.loads(output)
    assert output.count("\n") == 1
    told = re.findall("round (.)/4, 3/3 institutions, accuracy .*%, epsilon .* records/s, peak memory .* MB", progress)
    assert told == ["2", "4"]
    assert summary.keys() == SUMMARY
    assert (summary["run_dir"], summary["status"], summary["num_rounds"]) == (str(out), "completed", 4)
    assert summary["num_steps"] == 8
    assert summary["noise_multiplier"] == 4.0
    assert summary["score"].keys() == {"metric", "mean", "per_institution"}
    assert list(summary["score"]["per_institution"]) == list(summary["epsilon"]) == NAMES
    assert summary["score"]["mean"] == pytest.approx(sum(summary["score"]["per_institution"].values()) / 3)

    assert {path.name for path in out.iterdir()} == {
        *(
            "run.lock.json",
            "run.lock.toml",
            "events.jsonl",
            "metrics.jsonl",
            "privacy.json",
            "report.html",
            "report.json",
            "rounds",
            "adapter",
        )
    }
    assert sorted(path.name for path in (out / "rounds").iterdir()) == ["0003", "0004"]
    assert {path.name for path in (out / "rounds" / "0004").iterdir()} >= {"adapter.safetensors", "state.json"}
    assert (out / "adapter" / "README.md").is_file()
    events = read_lines(out / "events.jsonl")
    assert [event["round"] for event in events if event["event"] == "round_started"] == [1, 2, 3, 4]
    assert events[-1]["event"] == "completed"
    metrics = read_lines(out / "metrics.jsonl")
    assert ["score" in line for line in metrics] == [False, True, False, True]
    assert all(line["accepted"] == 3 and not line["dropped"] for line in metrics)
    assert all(set(line["num_steps"].values()) == {2 * line["round"]} for line in metrics)

    locked = check(RunConfig, tomllib.loads((out / "run.lock.toml").read_text(encoding="utf-8")), "lock")
    assert locked.model.sha256
    assert read_json(out / "privacy.json")["run_sha256"] == locked.sha256()
    assert read_json(out / "adapter" / "run.json") == json.loads(locked.canonical_json())


def test_privacy_json_can_be_recomputed_by_hand(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sets = settings("local.sampling_probability=0.2", "local.steps=3")
    summary = json.loads(confide("simulate", run_file, "--out", out, "--json", *sets)[1])
    privacy = read_json(out / "privacy.json")
    assert (privacy["status"], privacy["simulated"], privacy["study"]) == ("completed", True, "small")
    assert {"dp-accounting", "opacus", "confide"} <= privacy["versions"].keys()
    assert [row["institution"] for row in privacy["institutions"]] == NAMES
    for row in privacy["institutions"]:
        frozen = row["plan"]
        step = dp_event.PoissonSampledDpEvent(
            frozen["sampling_probability"], dp_event.GaussianDpEvent(frozen["noise_multiplier"])
        )
        accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE)
        accountant.compose(dp_event.SelfComposedDpEvent(step, row["num_steps"]))
        by_hand = accountant.get_epsilon(row["delta"])
        assert by_hand <= row["epsilon"] <= by_hand + 2e-4
        assert (row["num_steps"], row["unit"], frozen["sampling_probability"]) == (6, "record", 0.2)
        assert row["epsilon"] == row["epsilon_of_the_whole_plan"] < row["epsilon_rdp_of_the_whole_plan"]
        assert summary["epsilon"][row["institution"]] == row["epsilon"]


def test_validation_counts_are_accounted_and_reported(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sets = settings("evaluation.validation_every=2", "evaluation.validation_noise_multiplier=3.0")
    code, output, errors = confide("simulate", run_file, "--out", out, "--json", *sets)
    assert code == 0, errors
    summary = json.loads(output)
    assert ["validation" in line for line in read_lines(out / "metrics.jsonl")] == [False, True]
    assert read_lines(out / "metrics.jsonl")[1]["validation"].keys() == set(NAMES)
    without = json.loads(confide("simulate", run_file, "--json")[1])
    for row in read_json(out / "privacy.json")["institutions"]:
        assert (row["num_steps"], row["num_releases"]) == (2, 1)
        assert row["epsilon"] == row["epsilon_of_the_whole_plan"] == summary["epsilon"][row["institution"]]
        assert row["epsilon"] > without["epsilon"][row["institution"]], "they cost something"


def test_a_run_without_privacy_says_so_everywhere(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, output, _ = confide("simulate", run_file, "--out", out, *settings("privacy.unit=none"))
    assert code == 0
    assert "WITHOUT PRIVACY" in output
    assert output.count("no privacy") == 3
    assert "epsilon" not in output
    for row in read_json(out / "privacy.json")["institutions"]:
        assert row["no_privacy"] is True
        assert "epsilon" not in row
    assert "NO PRIVACY" in (out / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "privacy" in (out / "report.html").read_text(encoding="utf-8").lower()
    summary = json.loads(confide("simulate", run_file, "--json", *settings("privacy.unit=none"))[1])
    assert set(summary["epsilon"].values()) == {None}
    assert summary["noise_multiplier"] is None


def test_fixed_noise_is_not_announced_with_a_target_that_does_not_hold(
    confide: Confide, settings: Settings, run_file: Path
) -> None:
    """With privacy.noise_multiplier given, target_epsilon = 3.0 is a default that nothing enforces."""
    sets = settings("privacy.noise_multiplier=1.0", "local.sampling_probability=0.5")
    code, output, _ = confide("simulate", run_file, *sets)
    assert code == 0
    assert "at most 3 " not in output


def test_baselines(confide: Confide, settings: Settings, run_file: Path, tmp_path: Path) -> None:
    """Where institutions differ, each one's personalised adapter is among them."""
    out = tmp_path / "out"
    sets = settings("simulation.partition=dirichlet", "simulation.alpha=20")
    code, output, _ = confide("simulate", run_file, "--out", out, "--baselines", "--json", *sets)
    assert code == 0
    summary = json.loads(output)
    assert summary.keys() == SUMMARY | {"baselines"}
    assert summary["baselines"].keys() == {"no_privacy", "central", "local_only", "personalised"}
    for baseline in summary["baselines"].values():
        assert list(baseline["per_institution"]) == NAMES
        assert 0 <= baseline["mean"] <= 1
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "without privacy" in report
    assert "not" in report
    assert "share" in report
    assert re.search(r"[\d.,]+ records a second by all together", report)
    assert re.search(r"The process that trained took at most [\d,]+ MB of memory", report)
    assert re.findall(r'<td class="n">(\d+)</td><td>1–2</td></tr>', report) == ["4"] * len(NAMES), "shares, rounds"
    assert len(re.findall(r"<td>20\d\d-\d\d-\d\d \d\d:\d\d:\d\d</td></tr>", report)) == 2
    assert {row["num_steps"] for row in read_json(out / "privacy.json")["institutions"]} == {2}
    rounds = [line["round"] for line in read_lines(out / "metrics.jsonl")]
    assert rounds == [1, 2], "baselines leave no rounds of their own"


def test_baselines_of_shared_noise(confide: Confide, settings: Settings, run_file: Path, tmp_path: Path) -> None:
    """All of the noise from each institution stands in place of all records in one place."""
    out = tmp_path / "out"
    sets = settings(
        "federation.aggregation=secure-sum",
        "federation.weights=declared",
        "federation.min_clients=3",
        "privacy.max_colluding=1",
    )
    code, output, errors = confide("simulate", run_file, "--out", out, "--baselines", "--json", *sets)
    assert code == 0, errors
    assert list(json.loads(output)["baselines"]) == ["local_only", "local_noise", "no_privacy"]
    left_out = [line.partition(":")[0] for line in read_json(out / "privacy.json")["not_in_this_account"]]
    assert left_out == ["local_only", "local_noise", "no_privacy"]
    assert "together, with all of the noise from each institution" in (out / "report.html").read_text(encoding="utf-8")


def test_group_units(confide: Confide, settings: Settings, run_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sets = settings("privacy.unit=group", 'simulation.columns={ group = "patient" }')
    code, _, errors = confide("simulate", run_file, "--out", out, *sets)
    assert code == 0, errors
    assert {row["unit"] for row in read_json(out / "privacy.json")["institutions"]} == {"group"}


def test_natural_partition_with_strange_names(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path
) -> None:
    """Names come from the data: markup, slashes and dots in them are nothing but text."""
    names = ["[/b]", "../films", "[red]shop"]
    records = [{"text": f"film {number}", "label": "positive", "site": names[number % 3]} for number in range(30)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    out = tmp_path / "runs" / "out"
    sets = settings("simulation.partition=natural", "simulation.by=site")
    path = run_file.read_text(encoding="utf-8").replace("clients = 3", "")
    run_file.write_text(path, encoding="utf-8")
    code, output, errors = confide("simulate", run_file, "--out", out, *sets)
    assert code == 0, errors
    for name in names:
        assert name in output
    assert sorted(row["institution"] for row in read_json(out / "privacy.json")["institutions"]) == sorted(names)


def test_quiet_and_no_warnings_on_standard_output(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path
) -> None:
    records = read_lines(tmp_path / "data.jsonl")
    records[0]["text"] = "good " * 2_000_000
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    code, output, errors = confide("simulate", run_file, "--quiet", *settings("simulation.max_chars=1000"))
    assert (code, output) == (0, "")
    assert errors == "warning: data.jsonl: 1 texts are longer than 1000 characters and were cut\n"


def test_runs_get_a_directory_of_their_own(confide: Confide, run_file: Path, tmp_path: Path) -> None:
    summary = json.loads(confide("simulate", run_file, "--json", "--quiet")[1])
    assert Path(summary["run_dir"]).parent == Path("runs")
    assert summary["run_dir"].endswith("-small")
    assert (tmp_path / summary["run_dir"] / "report.html").is_file()


def test_runs_of_the_same_second_get_directories_of_their_own(
    confide: Confide, run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(begun.time, "strftime", lambda *_: "20260101-000000")
    runs = [json.loads(confide("simulate", run_file, "--json", "--quiet")[1])["run_dir"] for _ in range(2)]
    assert runs == ["runs/20260101-000000-small", "runs/20260101-000000-small-2"]


def test_no_folder_of_flower_stays_behind(run_file: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "FLWR_HOME"} | {"TMPDIR": str(temporary)}
    program = "from confide.common.flower import prepare; prepare(); prepare(); import flwr"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert not list(temporary.iterdir())


def test_the_default_scenario_is_accepted() -> None:
    import confide.simulations

    path = Path(confide.simulations.__path__[0]) / "scenarios" / "default.toml"
    run = load_run(path)
    assert (run.adapter.rank, run.adapter.train, run.privacy.unit) == (8, "B", "record")
    assert (run.privacy.target_epsilon, run.privacy.target_delta) == (3.0, 1e-5)
    assert run.federation.aggregation == "secure-sum"
    assert run.privacy.target_epsilon_if_broken is not None
    assert run.privacy.target_epsilon_if_broken <= 20


@pytest.mark.parametrize("name", ["default", "scoring", "many-questions", "reviews"])
def test_a_scenario_is_found_by_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of that name in the current folder comes first; what is no scenario stays a path."""
    monkeypatch.chdir(tmp_path)
    found = prepared.file_of(Path(name))
    assert (found.parent.name, found.stem) == ("scenarios", name)
    assert load_run(found).privacy.target_epsilon is not None
    Path(name).write_text("", encoding="utf-8")
    assert prepared.file_of(Path(name)) == Path(name)
    assert prepared.file_of(Path("poetry")) == Path("poetry")
    assert prepared.file_of(None).stem == "default"


def test_the_epsilon_that_progress_shows_is_that_of_the_steps_so_far(make_run: Any) -> None:
    run = make_run()
    counts = {"num_steps": {"mary": 10, "jude": 1}, "num_releases": {"mary": 0, "jude": 0}}
    shown = epsilon_of(run, {"event": "round", "round": 10, **counts})
    plan_of = make_plan(run, run.local.nominal_units)
    assert shown == {"mary": epsilon(plan_of, 10, 0), "jude": epsilon(plan_of, 1, 0)}
    assert shown["mary"] > shown["jude"] > 0
