"""A search for settings: what is varied, what a folder holds, and how an interrupted search goes on."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from support.sites import make_records

from confide.common.cli.main import main
from confide.common.errors import InputError
from confide.simulations.interface import sweep as module
from confide.simulations.interface.sweep import Varied, sweep, varied

Settings = Callable[..., list[str]]
ROWS = [{key: row[key] for key in ("text", "label")} for row in make_records(60)]
SHARES = {"north": ROWS[:30], "south": ROWS[30:]}
VARY = ["federation.learning_rate=0.01:0.2:log", "adapter.rank=2,4"]


@pytest.fixture
def file(base_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(
        f"""[study]
name = "tuned"
[model]
base = "{base_folder}"
[task]
kind = "text-classification"
labels = ["negative", "positive"]
max_length = 64
[federation]
num_rounds = 1
[local]
nominal_units = 20
[privacy]
noise_multiplier = 4.0
[evaluation]
every = 1
""",
        encoding="utf-8",
    )
    return path


def test_each_trial_is_a_run_and_the_best_comes_first(file: Path, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    table = sweep(file, VARY, tmp_path / "sweep", data=SHARES, trials=3, on_event=events.append)
    assert list(table.columns) == ["federation.learning_rate", "adapter.rank", "score", "trial"]
    assert list(table["score"]) == sorted(table["score"], reverse=True)
    assert sorted(table["trial"]) == [event["number"] for event in events] == [0, 1, 2]
    for event in events:
        lock = (tmp_path / f"sweep/trial-{event['number']:03}/run.lock.toml").read_text(encoding="utf-8")
        assert f"rank = {event['adapter.rank']}\n" in lock
        assert f"learning_rate = {event['federation.learning_rate']}\n" in lock
        assert 0.01 <= event["federation.learning_rate"] <= 0.2
    used = {event["number"]: event["federation.learning_rate"] for event in events}
    assert dict(zip(table["trial"], table["federation.learning_rate"], strict=True)) == used, "a row names its own run"


@pytest.mark.waits
def test_an_interrupted_search_goes_on(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, began = module.simulate, []

    def interrupted(*given: Any, **named: Any) -> Any:
        began.append(named["out"])
        if len(began) == 2:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(module, "simulate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(file, VARY, tmp_path / "sweep", data=SHARES, trials=3)
    table = sweep(file, VARY, tmp_path / "sweep", data=SHARES, trials=3)
    assert len(table) == 3
    assert len(set(began)) == len(began) == 4
    assert table["federation.learning_rate"].nunique() == 3  # what came before is not tried again
    sweep(file, VARY, tmp_path / "sweep", data=SHARES, trials=3)
    assert len(began) == 4


def test_other_choices_need_another_folder(file: Path, tmp_path: Path) -> None:
    sweep(file, ["adapter.rank=2,4"], tmp_path / "sweep", data=SHARES, trials=1)
    with pytest.raises(InputError, match="holds trials of other --vary settings; use another --out"):
        sweep(file, ["adapter.rank=2,8"], tmp_path / "sweep", data=SHARES, trials=2)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.b=1:8", Varied("a.b", low=1, high=8)),
        ("a.b=0.1:1:log", Varied("a.b", low=0.1, high=1, log=True)),
        ("a.b=x", Varied("a.b", choices=("x",))),
        ("a.b=all,top:3", Varied("a.b", choices=("all", "top:3"))),
    ],
)
def test_settings_are_read(text: str, found: Varied) -> None:
    assert varied(text) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rank=4", r"must have the form section.key="),
        ("a.b", r"must have the form section.key="),
        ("a.b=2:1", "a range goes up"),
        ("a.b=0:1:log", "begins above 0"),
        ("a.b=x:y", "from one number to another"),
        ("a.b=1:inf", "a range ends"),
        ("a.b=-1e999:1", "a range ends"),
        ("a.b=1:1e300", "a range ends"),
    ],
)
def test_a_bad_setting_is_named(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        varied(text)


def test_a_search_needs_a_file_and_a_setting(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="varies at least one setting"):
        sweep(file, [], tmp_path / "sweep")
    with pytest.raises(InputError, match="changes settings of a file"):
        sweep({"study": {"name": "x"}}, VARY, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_the_command_promises_nothing_about_private_records(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No trial is charged, whatever its data are: so they must be public."""
    monkeypatch.setattr("confide.simulations.sweep", lambda *_, **__: pandas.DataFrame([{"score": 1.0}]))
    monkeypatch.setattr(sys, "argv", ["confide", "sweep", str(file), "--vary", VARY[0]])
    with pytest.raises(SystemExit):
        main()
    assert "nothing is charged for them: use public or made-up records only" in capsys.readouterr().out
