"""The script that measures methods goes on where it stopped, at the rate that did best at the first seed."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MakeRun

from confide.common.config.run import RunConfig
from confide.common.model.scores import Scores
from confide.simulations.benchmarks.scores import methods
from confide.simulations.benchmarks.scores.accuracy import Setting
from confide.simulations.studies.baselines import without_privacy

PLACE = "before\n<!-- scores -->\nold\n<!-- end of scores -->\nafter\n"
Ran = list[tuple[int, int, float, str]]  # rank, seed, rate and way of each federation


def _way(run: RunConfig) -> str:
    if run.privacy.unit == "none":
        return "no privacy"
    return "local noise" if run.federation.min_clients == 3 else "shared noise"


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_run: MakeRun) -> Callable[..., tuple[Ran, str]]:
    """``measure("--seeds", "7", stop=5)``: what was run in this call until it was cut off, and the document then."""
    document = tmp_path / "methods.md"
    document.write_text(PLACE, encoding="utf-8")

    def with_method(trial: methods.Trial) -> RunConfig:
        study, rate = {"seed": trial.seed}, {"learning_rate": trial.rate}
        return make_run(study=study, federation=rate, adapter=methods.METHODS[trial.method])

    def local(run: RunConfig) -> RunConfig:
        return run.model_copy(update={"federation": run.federation.model_copy(update={"min_clients": 3})})

    monkeypatch.setattr(methods, "_DOCUMENT", document)
    monkeypatch.setattr(methods, "METHODS", {"small": {"rank": 2}, "large": {"rank": 8}})
    ways = {"shared noise": lambda run: run, "local noise": local, "no privacy": without_privacy}
    monkeypatch.setattr(methods, "WAYS", ways)
    monkeypatch.setattr(methods.Trial, "run", with_method)
    monkeypatch.setattr(methods, "sizes", lambda run: (100 * run.adapter.rank, 4))
    monkeypatch.setattr(methods, "step_over_lora", lambda method: 1.5)

    def call(*options: str, stop: int = 100) -> tuple[Ran, str]:
        ran: Ran = []

        def accuracy(setting: Setting) -> Scores:
            if len(ran) == stop:
                raise KeyboardInterrupt
            run, way = setting.run, _way(setting.run)
            ran.append((run.adapter.rank, run.study.seed, run.federation.learning_rate, way))
            best = run.federation.learning_rate == (0.02 if way == "no privacy" else 0.06)
            return Scores("accuracy", {"one": 0.5 + 0.2 * best + 0.02 * (run.study.seed == 8)})

        monkeypatch.setattr(methods, "accuracy", accuracy)
        monkeypatch.setattr(sys, "argv", ["methods.py", "--out", str(tmp_path / "scores.jsonl"), *options])
        try:
            methods.main()
        except KeyboardInterrupt:
            assert len(ran) == stop
        return ran, document.read_text(encoding="utf-8")

    return call


def test_measuring_goes_on_where_it_stopped(measure: Callable[..., tuple[Ran, str]]) -> None:
    first, document = measure("--seeds", "7,8", stop=5)
    assert document == PLACE
    rest, document = measure("--seeds", "7,8")
    tried = [
        (rank, 7, rate, way) for rank in (2, 8) for rate in (0.02, 0.06, 0.2) for way in ("shared noise", "no privacy")
    ]
    chosen = [("shared noise", 0.06), ("local noise", 0.06), ("no privacy", 0.02)]
    later = [(rank, 8, rate, way) for rank in (2, 8) for way, rate in chosen]
    assert first + rest == [*tried, (2, 7, 0.06, "local noise"), (8, 7, 0.06, "local noise"), *later]
    assert measure("--seeds", "7,8")[0] == []
    scores = "71.0 ± 1.0 (2) | 71.0 ± 1.0 (2) | 71.0 ± 1.0 (2)"
    assert f"| `small` | 200 | 0 kB | 1.50 | 0.02 / 0.06 | {scores} |\n" in document
    assert document.startswith("before\n<!-- scores -->\n| method |")


def test_a_part_of_the_methods_is_printed_and_the_document_stays(
    measure: Callable[..., tuple[Ran, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    ran, document = measure("--seeds", "7", "--only", "large")
    assert (len(ran), document) == (7, PLACE)
    assert "| `large` | 800 |" in capsys.readouterr().out
