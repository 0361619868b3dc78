"""The script that measures training aids compares like with like, and goes on where it stopped."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from confide.common.config.run import RunConfig
from confide.common.data.records import Record
from confide.simulations.benchmarks.scores import aids
from confide.simulations.data.institutions import Institutions

TEXTS: list[Record] = [{"text": str(number), "label": "HUM"} for number in range(50)]
PLACE = "before\n<!-- scores -->\nold\n<!-- end of scores -->\nafter\n"


class Federations:
    """What the script ran: runs, their records and their folders; each scores one point more than the one before."""

    def __init__(self) -> None:
        self.runs: list[tuple[RunConfig, list[Record], Path]] = []

    def simulate(self, run: RunConfig, data: list[Record], *, out: Path, quiet: bool) -> Any:
        assert quiet
        self.runs.append((run, data, out))
        out.mkdir()
        return SimpleNamespace(metrics={"mean": len(self.runs) / 100})


@pytest.fixture
def federations(monkeypatch: pytest.MonkeyPatch) -> Federations:
    """All that trains, in place of which runs are noted."""
    found = Federations()
    monkeypatch.setattr(aids, "simulate", found.simulate)
    monkeypatch.setattr(aids, "load_institutions", lambda run: Institutions({"a": TEXTS[:30]}, {"a": TEXTS[30:]}))
    monkeypatch.setattr(aids.Pair, "alone", lambda pair: 12.5)
    return found


@pytest.fixture
def measure(
    federations: Federations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """``measure("--seeds", "7")``: how many federations ran in this call, and the document after it."""
    document = tmp_path / "aids.md"
    document.write_text(PLACE, encoding="utf-8")
    monkeypatch.setattr(aids, "_DOCUMENT", document)

    def call(*options: str) -> tuple[int, str]:
        before = len(federations.runs)
        argv = ["aids.py", "--public", "10", "--out", str(tmp_path / "scores.jsonl"), *options]
        monkeypatch.setattr(sys, "argv", argv)
        aids.main()
        return len(federations.runs) - before, document.read_text(encoding="utf-8")

    return call


def test_with_and_without_train_on_the_same_texts_and_none_of_them_is_public(
    federations: Federations, measure: Callable[..., Any]
) -> None:
    measure("--seeds", "7")
    [(public_run, public, folder)] = [run for run in federations.runs if run[0].federation.num_rounds == 40]
    assert public_run.privacy.unit == "none"
    assert len(public) == 10
    others = [(run, texts) for run, texts, _ in federations.runs if run.federation.num_rounds == 8]
    assert len(others) == 9
    for place, (unit, aggregation) in enumerate([("none", "fedavg"), ("record", "fedavg"), ("record", "secure-sum")]):
        (plain, texts), (begun, same), (adversarial, also) = others[3 * place : 3 * place + 3]
        assert (plain.privacy.unit, plain.federation.aggregation) == (unit, aggregation)
        assert texts == same == also
        assert sorted(texts + public, key=str) == sorted(TEXTS, key=str)
        assert begun.adapter.start_from == str(folder)
        assert begun.model_copy(update={"adapter": plain.adapter}) == plain
        assert adversarial.local.adversarial == 0.05
        assert adversarial.model_copy(update={"local": plain.local}) == plain


def test_measuring_goes_on_where_it_stopped(measure: Callable[..., tuple[int, str]]) -> None:
    assert measure("--seeds", "7")[0] == 10
    ran, document = measure("--seeds", "7,8")
    assert ran == 10
    assert measure("--seeds", "7,8")[0] == 0
    # Seed 7 scores 1, 2, 3 and so on, in the order of its runs, of which the second is that of the public texts.
    gain = "+2.0 (+2.0 to +2.0)"
    assert f"| a start on public texts | no privacy | 6.0 ± 5.0 (2) | 8.0 ± 5.0 (2) | {gain} |\n" in document
    assert "| public texts alone | | | 12.5 ± 0.0 (2) | |\n" in document
    assert document.startswith("before\n<!-- scores -->\n| aid |")


def test_other_settings_are_other_scores(measure: Callable[..., tuple[int, str]]) -> None:
    measure("--seeds", "7")
    assert measure("--seeds", "7", "--public", "20")[0] == 10


def test_another_scenario_leaves_the_document_alone(measure: Callable[..., tuple[int, str]]) -> None:
    ran, document = measure("--seeds", "7", "--scenario", "questions", "--set", "simulation.test_fraction=0.89")
    assert ran == 7, "it shares no noise: two ways, three federations each, and that of the public texts"
    assert document == PLACE
