"""Paths of a run.toml count from its own folder, wherever a command is called."""

import json
import logging
import shutil
import sys
from pathlib import Path

import pytest
from support.installations import write_records
from support.sites import make_records

from confide.common.cli import main
from confide.common.config.run import load_run

_RUN = """
[study]
name = "test"
[model]
base = "models/tiny"
[adapter]
rank = 2
[task]
labels = ["negative", "positive"]
max_length = 16
[federation]
num_rounds = 1
[local]
nominal_units = 40
[evaluation]
data = "public.jsonl"
[simulation]
data = "data.jsonl"
clients = 2
[speed]
device = "cpu"
"""


@pytest.fixture
def folder(tmp_path: Path, base_folder: Path) -> Path:
    """A study's folder: its run, and all that the run names."""
    folder = tmp_path / "study"
    shutil.copytree(base_folder, folder / "models" / "tiny")
    (folder / "run.toml").write_text(_RUN, encoding="utf-8")
    write_records(folder / "data.jsonl", make_records(40))
    write_records(folder / "public.jsonl", make_records(10))
    return folder


def _call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["confide", *words])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    return int(stopped.value.code or 0)


def test_a_run_is_simulated_from_any_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert _call(monkeypatch, "simulate", str(folder / "run.toml"), "--out", "out", "--json") == 0
    output, errors = capsys.readouterr()
    assert json.loads(output)["score"]["per_institution"].keys() == {"public"}
    assert "is used" not in errors
    again = str(elsewhere / "out" / "run.lock.toml")
    monkeypatch.chdir(folder)
    assert _call(monkeypatch, "simulate", again, "--out", str(tmp_path / "again"), "--json") == 0, (
        "data are found again"
    )


def test_what_is_agreed_to_does_not_depend_on_where_a_run_lies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    there = load_run(Path("run.toml"))
    monkeypatch.chdir("/")
    from_afar = load_run(folder / "run.toml")
    assert from_afar.sha256() == there.sha256()
    assert str(folder) not in from_afar.model_dump_json(), "the machine's folders are nobody's business"
    copied = from_afar.model_copy(update={"simulation": None})
    assert copied.at("models/tiny") == str(folder / "models" / "tiny"), "also of a run that was locked"


def test_where_both_exist_the_own_folder_counts_and_it_is_said_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("public.jsonl", "models"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    run = load_run(folder / "run.toml")
    with caplog.at_level(logging.WARNING):
        assert [run.at("public.jsonl") for _ in range(3)] == [str(folder / "public.jsonl")] * 3
        assert run.at("models/tiny") == str(folder / "models" / "tiny")
    assert [record.getMessage() for record in caplog.records] == [
        f"'public.jsonl' is both in {folder} and in {tmp_path}: the first is used, for paths of a run.toml count from "
        "its own folder"
    ]


def test_what_lies_in_the_current_folder_alone_is_found_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.move(folder / "public.jsonl", tmp_path / "public.jsonl")
    monkeypatch.chdir(tmp_path)
    run = load_run(folder / "run.toml")
    assert run.at("public.jsonl") == "public.jsonl"
    assert run.at("organisation/name") == "organisation/name"


def test_folders_of_data_are_found_beside_a_run_and_other_folders_are_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of built-in data may be any folder's too."""
    monkeypatch.chdir("/")
    files = {"parts": "part-0.parquet", "saved": "state.json", "splits": "dataset_dict.json", "default": "notes.txt"}
    for name, file in files.items():
        (folder / name).mkdir()
        (folder / name / file).touch()
    written = (folder / "run.toml").read_text(encoding="utf-8")
    found = {}
    for name in files:
        (folder / "run.toml").write_text(written.replace("data.jsonl", name), encoding="utf-8")
        found[name] = load_run(folder / "run.toml").at(name)
    assert found == {**{name: str(folder / name) for name in files}, "default": "default"}


@pytest.mark.parametrize("there", [True, False])
def test_a_path_of_the_command_line_counts_from_the_current_folder(
    folder: Path, tmp_path: Path, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there:
        write_records(tmp_path / "data.jsonl", make_records(10))
    monkeypatch.chdir(tmp_path)
    run = load_run(folder / "run.toml", ["simulation.data=data.jsonl"])
    assert run.at("data.jsonl") == "data.jsonl"


def test_a_name_that_is_no_model_folder_stays_a_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An organisation's folder beside a run must not hide a model of the hub."""
    (folder / "models" / "tiny" / "config.json").unlink()
    monkeypatch.chdir("/")
    assert load_run(folder / "run.toml").at("models/tiny") == "models/tiny"
