"""`confide data suggest`, as it is typed."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.cards import make_card
from support.kinds import of_kind
from support.sites import random_state

from confide.common.config.run import RunConfig, lock
from confide.common.export.write import export_adapter
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import WarmModel, warm_model

Confide = Callable[..., tuple[int, str, str]]
ROWS = [{"id": 100 + number, "note": f"the film was {'not ' * (number % 3)}good {number}"} for number in range(9)]


@pytest.fixture
def confide(confide_data: Confide) -> Confide:
    return partial(confide_data, "suggest")


@pytest.fixture
def adapter(tmp_path: Path, make_run: Callable[..., RunConfig], model: WarmModel, base_folder: Path) -> Path:
    run = lock(make_run(), hash_model(base_folder))
    export_adapter(tmp_path / "adapter", run, model, random_state(model), make_card(run))
    return tmp_path / "adapter"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS), encoding="utf-8")
    return path


def test_chosen_records_come_back_whole_with_their_scores(confide: Confide, adapter: Path, notes: Path) -> None:
    arguments = (adapter, notes, "--columns", "text=note", "--number", 3)
    code, output, errors = confide(*arguments)
    lines = [json.loads(line) for line in output.splitlines()]
    assert (code, errors, len(lines)) == (0, "", 3)
    for line in lines:
        assert {name: line[name] for name in ("id", "note")} == ROWS[line["number"] - 1]
        assert 0 < line["uncertainty"] < 1
    out = notes.with_name("chosen.jsonl")
    assert confide(*arguments, "--out", out) == (0, "", "")
    assert out.read_text(encoding="utf-8") == output
    assert out.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        ("", (), "notes.jsonl: holds no records"),
        ('{"body": "x"}', (), "it has: 'body'; name the one that holds it with --columns text=COLUMN"),
        ('{"text": ""}', (), "no record that the task can read"),
        ('{"text": "x"}', ("--out", "."), "--out .: is a folder"),
        ('{"text": "x"}\n{"text": "x", "number": 7}', (), "has a column 'number', and the output adds one"),
        ('{"text": "x"}', ("--columns", "note"), "--columns 'note' must have the form"),
    ],
)
def test_bad_input_is_one_line(
    content: str, arguments: tuple[str, ...], words: str, confide: Confide, adapter: Path, notes: Path
) -> None:
    notes.write_text(content, encoding="utf-8")
    code, output, errors = confide(adapter, notes, *arguments)
    assert (code, output, len(errors.splitlines())) == (2, "", 1)
    assert words in errors
    assert "no such folder" in confide(notes.with_name("none"), notes)[2]
    assert "none.jsonl: cannot be read" in confide(adapter, notes.with_name("none.jsonl"))[2]


def test_another_kind_is_refused_before_its_base_is_loaded(
    confide: Confide, tmp_path: Path, make_run: Callable[..., RunConfig], notes: Path, base_folder: Path
) -> None:
    run = of_kind(make_run(), "scoring")
    model = warm_model(run)
    locked = lock(run, hash_model(base_folder))
    export_adapter(tmp_path / "other", locked, model, random_state(model), make_card(locked))
    code, output, errors = confide(tmp_path / "other", notes, "--base", tmp_path / "no-base")
    assert (code, output) == (2, "")
    assert "task.kind = 'scoring' gives no probability" in errors
