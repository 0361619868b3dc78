"""How-tos of docs/serving.md and docs/aids.md: all blocks of a section run in order, on a tiny base and few texts."""

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import transformers
from support.json_files import read_lines
from support.sites import make_records

from confide.common.export.start import hash_adapter

pytestmark = pytest.mark.waits
Confide = Callable[..., tuple[int, str, str]]
DOCS = Path(__file__).parents[2] / "docs"
SMALL = ("federation.num_rounds=2", "evaluation.every=2", "speed.device=cpu", "speed.tokens_per_micro_batch=128")


def _blocks(page: str, heading: str) -> list[tuple[str, str]]:
    """The language and the text of every block of a section."""
    text = (DOCS / page).read_text(encoding="utf-8")
    [section] = re.findall(rf"(?ms)^## {heading}$(.*?)(?=^## |\Z)", text)
    found = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", section)
    assert {language for language, _ in found} <= {"toml", "python", "sh"}, "another block would not be run"
    return found


def _follow(confide: Confide, blocks: list[tuple[str, str]], small: tuple[str, ...], added: str = "") -> None:
    """Do what the blocks say. A run.toml has the name that the next commands call it by, and ``added`` at its end."""
    for place, (language, block) in enumerate(blocks):
        if language == "toml":
            commands = "".join(text for kind, text in blocks[place:] if kind == "sh")
            Path(re.findall(r"\w+\.toml", commands)[0]).write_text(block + added, encoding="utf-8")
        elif language == "python":
            exec(compile(block, "docs", "exec"), {})  # noqa: S102 - our own page
        else:
            for line in block.splitlines():
                _command(confide, line, small)


def _command(confide: Confide, line: str, small: tuple[str, ...]) -> None:
    before, _, target = line.partition(" > ")
    program, *words = shlex.split(before)
    assert program == "confide", line
    changes = [word for setting in small for word in ("--set", setting)] if words[0] == "simulate" else []
    code, printed, errors = confide(*words, *changes)
    assert code == 0, f"{line}\n{errors}"
    if target:
        Path(target).write_text(printed, encoding="utf-8")


def _write_lines(path: str, rows: list[dict[str, Any]]) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_model_with_half_of_the_layers_learns_from_the_whole_one(confide: Confide, run_file: Path) -> None:
    assert confide("simulate", run_file, "--out", "runs/mine")[0] == 0
    texts = [f"{row['text']} film" for row in make_records(40)]
    _write_lines("public.jsonl", [{"text": text} for text in texts])
    task = tomllib.loads(run_file.read_text(encoding="utf-8"))["task"]
    _follow(confide, _blocks("serving.md", "A smaller model"), SMALL, "\n" + tomli_w.dumps({"task": task}))
    assert [row["text"] for row in read_lines(Path("labelled.jsonl"))] == texts
    layers = [transformers.AutoConfig.from_pretrained(name).num_hidden_layers for name in ("merged", "short")]
    assert layers == [2, 1]
    [student] = set(Path("runs").iterdir()) - {Path("runs/mine")}
    code, printed, _ = confide("predict", student, "a good film")
    assert (code, json.loads(printed)["prediction"] in task["labels"]) == (0, True)


def test_a_study_goes_on_from_an_adapter_of_public_texts(
    confide: Confide, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = _blocks("aids.md", "A start on public texts")
    [public] = [tomllib.loads(text) for language, text in blocks if language == "toml"]
    labels = public["task"]["labels"]
    rows = [{**row, "label": labels[number % len(labels)]} for number, row in enumerate(make_records(120))]
    _write_lines("public.jsonl", rows[:60])
    _write_lines("private.jsonl", rows[60:])
    study = {name: public[name] for name in ("adapter", "task")}
    study |= {"study": {**public["study"], "name": "questions"}, "local": {"nominal_units": 20}}
    study |= {"privacy": {"noise_multiplier": 4.0}, "simulation": {"data": "private.jsonl", "clients": 3}}
    Path("run.toml").write_text(tomli_w.dumps(study), encoding="utf-8")
    _follow(confide, blocks, (*SMALL, f"model.base={base_folder}", "adapter.layers=top:1"))  # the base has two
    locked = tomllib.loads(Path("runs/from-public/run.lock.toml").read_text(encoding="utf-8"))
    assert locked["adapter"]["start_sha256"] == hash_adapter(Path("runs/public/adapter"))
    assert confide("verify", "runs/from-public")[0] == 0
