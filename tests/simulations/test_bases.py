"""What the benchmark of several bases computes from its runs, and its questions."""

import json
from pathlib import Path

import pytest

from confide.simulations.benchmarks import bases
from confide.simulations.benchmarks.bases import LABELS, figures, table, write_questions


def test_figures_are_of_the_runs_at_epsilon_3() -> None:
    found = figures({"no privacy": [84.0, 82.0], "epsilon 8": [10.0], "epsilon 3": [80.0, 70.0, 78.0]})
    assert found == {
        "mean": pytest.approx(76.0),
        "deviation": pytest.approx(28**0.5),
        "below mean": pytest.approx(6.0),
        "below no privacy": pytest.approx(7.0),
    }


def test_a_figure_beyond_its_bar_has_a_star() -> None:
    good = dict.fromkeys(bases.BARS, 1.0) | {"mean": 80.0}
    rows = table({"good": good, "bad": {**good, "below mean": 5.1}}).splitlines()
    assert [row.count("*") for row in rows[1:]] == [0, 1]


def test_each_question_comes_once_with_a_label_of_the_task(tmp_path: Path) -> None:
    write_questions(tmp_path / "questions.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({row["text"] for row in rows}) == len(rows) > 5000
    assert {row["label"] for row in rows} == set(LABELS["questions"])
