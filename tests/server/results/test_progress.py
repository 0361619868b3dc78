"""What a person sees: plain lines in a log, a table on a terminal, and nothing that data can break."""

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from confide.common.config.run import RunConfig
from confide.server.results import progress
from confide.server.results.progress import beside, show
from confide.server.rounds.run_context import Event

MakeRun = Callable[..., RunConfig]
NAME = "[/b] [red]clinic[/red]"


def _events(name: str) -> list[Event]:
    accuracy = {"mean": 0.75, "per_institution": {name: 0.5, "b": 1.0}}
    return [
        {"event": "offered", "asked": 2, "accepted": 2},
        {"event": "round_started", "round": 1, "institutions": [name, "b"]},
        {"event": "accepted", "round": 1, "institution": "b"},
        {"event": "dropped", "round": 1, "institution": name, "reason": "declined"},
        {"event": "round", "round": 1, "num_steps": {"b": 1}, "expected_units": 100.0, "seconds": 50.0},
        {"event": "round_started", "round": 2, "institutions": [name, "b"]},
        {"event": "accepted", "round": 2, "institution": "b"},
        {"event": "accepted", "round": 2, "institution": name},
        {
            "event": "round",
            "round": 2,
            "num_steps": {name: 2, "b": 2},
            "expected_units": 300.0,
            "seconds": 2.0,
            "score": accuracy,
        },
        {"event": "federation_finished", "score": accuracy},
    ]


def _spent(event: Event) -> dict[str, float]:
    return {key: 1.5 * value for key, value in event["num_steps"].items()}


def _shown(run: RunConfig, *, terminal: bool, quiet: bool = False, name: str = "clinic") -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=160, soft_wrap=True)
    with show(run, _spent, console, quiet=quiet, memory=lambda: "700 MB") as emit:
        for event in _events(name):
            emit(event)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())


class _Lines(Console):
    """A log as a list of lines."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(file=io.StringIO())
        self._lines = lines

    def print(self, *objects: Any, **_: Any) -> None:
        self._lines.append(str(objects[0]))


@pytest.fixture
def run(make_run: MakeRun) -> RunConfig:
    privacy = {"noise_multiplier": None, "target_epsilon": 8.0}
    return make_run(federation={"num_rounds": 4}, privacy=privacy, evaluation={"every": 2})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """``clock[0] = 7.0`` sets the time that the display sees."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_for_each_evaluated_round(run: RunConfig) -> None:
    dropped, line = _shown(run, terminal=False).splitlines()
    assert dropped == "round 1: clinic dropped: declined"
    assert line.startswith("round 2/4, 2/2 institutions, accuracy 75.0%, epsilon 3.00 of 8, 150 records/s, ")
    assert re.search(", peak memory 700 MB, about [0-9]+ s left$", line)


def test_the_first_epsilon_of_shared_noise_is_shown_with_its_condition(run: RunConfig) -> None:
    shared = run.privacy.model_copy(update={"max_colluding": 3, "grid_bits": 10})
    told = _shown(run.model_copy(update={"privacy": shared}), terminal=False).splitlines()[-1]
    assert "epsilon 3.00 of 8 if at most 3 members of a sum collude, 150 records/s" in told
    table = _shown(run.model_copy(update={"privacy": shared}), terminal=True)
    assert "epsilon spent / target if at most 3 members of a sum collude" in table
    assert "collude" not in _shown(run, terminal=True)


def test_a_terminal_gets_a_table(run: RunConfig) -> None:
    text = _shown(run, terminal=True)
    for word in ("clinic", "50.0%", "3.00 / 8", "round 2/4", "150 records/s", "700 MB"):
        assert word in text


def test_quiet_shows_nothing(run: RunConfig) -> None:
    assert _shown(run, terminal=True, quiet=True) == _shown(run, terminal=False, quiet=True) == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_names_from_data_are_text_and_not_markup(run: RunConfig, terminal: bool) -> None:
    assert NAME in _shown(run, terminal=terminal, name=NAME)


def test_without_privacy_no_epsilon_is_shown(make_run: MakeRun) -> None:
    run = make_run(privacy={"unit": "none"}, evaluation={"every": 2})
    file = io.StringIO()
    with show(run, lambda event: {}, Console(file=file, width=160), quiet=False) as emit:
        for event in _events("clinic"):
            emit(event)
    assert "accuracy" in file.getvalue()
    assert "epsilon" not in file.getvalue()
    assert "memory" not in file.getvalue()  # nobody said whose


def test_the_first_round_does_not_count_once_there_is_a_second(run: RunConfig, clock: list[float]) -> None:
    lines = []
    with show(run, _spent, _Lines(lines), quiet=False) as emit:
        for number, ended_at, units in [(1, 1000.0, 10.0), (2, 1002.0, 10.0), (3, 1007.0, 30.0), (4, 1009.0, 20.0)]:
            emit({"event": "round_started", "round": number, "institutions": ["a"]})
            seconds, clock[0] = ended_at - clock[0], ended_at
            emit(
                {
                    "event": "round",
                    "round": number,
                    "num_steps": {"b": number},
                    "expected_units": units,
                    "seconds": seconds,
                }
            )
    assert lines == [
        "round 2/4, 0/1 institutions, epsilon 3.00 of 8, 5.0 records/s, about 4 s left",
        "round 4/4, 0/1 institutions, epsilon 6.00 of 8, 6.7 records/s",
    ]


def test_an_estimate_is_there_within_the_first_round(run: RunConfig, clock: list[float]) -> None:
    view = progress._View(run, _spent, None, progress._Pace(run))
    view.update({"event": "round_started", "round": 1, "institutions": ["a", "b"]})
    clock[0] = 10.0
    assert view.line() == "round 1/4, 0/2 institutions"
    view.update({"event": "accepted", "round": 1, "institution": "b"})
    assert view.line() == "round 1/4, 1/2 institutions, about 1 min 10 s left"


def test_a_round_that_goes_on_with_its_sum_is_the_one_that_is_shown(run: RunConfig, clock: list[float]) -> None:
    """After an interruption no `round_started` comes for it; before one, the sum is of fewer than were asked."""
    resumed, whole = (progress._View(run, _spent, None, progress._Pace(run)) for _ in range(2))
    whole.update({"event": "round_started", "round": 3, "institutions": ["a", "b", "c"]})
    clock[0] = 10.0
    for view in (resumed, whole):
        view.update({"event": "sum_started", "round": 3, "institutions": ["a", "b"]})
        view.update({"event": "accepted", "round": 3, "institution": "b"})
    assert resumed.line().startswith("round 3/4, 1/2 institutions")
    assert whole.line().startswith("round 3/4, 1/3 institutions")


def test_groups_are_counted_as_groups(make_run: MakeRun) -> None:
    pace = progress._Pace(make_run(privacy={"unit": "group"}))
    assert pace.speed() is None
    pace.end({"event": "round", "round": 1, "expected_units": 4000.0, "seconds": 2.0})
    assert pace.speed() == "2,000 groups/s"


def test_an_epsilon_that_keeps_its_target_is_not_shown_above_it() -> None:
    """Of fixed noise the target is what it gives: 21.541, and 21.55 of that would be too much."""
    assert beside(21.541, 21.541) == ("21.5410", "21.5410")
    assert beside(21.5301, 21.541) == ("21.54", "21.541")
    assert beside(3.0, 3.0) == ("3.00", "3")
    assert beside(3.1, 3.0) == ("3.10", "3"), "what is above is shown above"
