"""What the benchmark of several bases computes from its runs, and its questions."""

import pytest

from confide.simulations.benchmarks.scores import bases
from confide.simulations.benchmarks.scores.bases import LABELS, figures, table
from confide.simulations.data.questions import read_questions


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


def test_each_question_has_a_label_of_the_task() -> None:
    assert {row["label"] for row in read_questions()} == set(LABELS["questions"])
