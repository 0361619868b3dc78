"""What a person sees: plain lines in a log, a table on a terminal, and nothing that data can break."""

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from confide.common.run_config import RunConfig
from confide.server.job import Event
from confide.server.progress import show

MakeRun = Callable[..., RunConfig]
NAME = "[/b] [red]clinic[/red]"


def _events(name: str) -> list[Event]:
    accuracy = {"mean": 0.75, "per_institution": {name: 0.5, "b": 1.0}}
    return [
        {"event": "offered", "asked": 2, "accepted": 2},
        {"event": "round_started", "round": 1, "institutions": [name, "b"]},
        {"event": "accepted", "round": 1, "institution": "b"},
        {"event": "dropped", "round": 1, "institution": name, "reason": "declined"},
        {"event": "round", "round": 1, "accepted": 1, "num_steps": {"b": 1}},
        {"event": "round_started", "round": 2, "institutions": [name, "b"]},
        {"event": "accepted", "round": 2, "institution": "b"},
        {"event": "accepted", "round": 2, "institution": name},
        {"event": "round", "round": 2, "accepted": 2, "num_steps": {name: 2, "b": 2}, "accuracy": accuracy},
        {"event": "federation_finished", "accuracy": accuracy},
    ]


def _shown(run: RunConfig, *, terminal: bool, quiet: bool = False, name: str = "clinic") -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=120, soft_wrap=True)
    with show(
        run, lambda event: {key: 1.5 * value for key, value in event["num_steps"].items()}, console, quiet=quiet
    ) as emit:
        for event in _events(name):
            emit(event)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())


@pytest.fixture
def run(make_run: MakeRun) -> RunConfig:
    return make_run(federation={"num_rounds": 4}, privacy={"noise_multiplier": None, "target_epsilon": 8.0})


def test_a_log_gets_a_line_for_each_evaluated_round(run: RunConfig) -> None:
    dropped, line = _shown(run, terminal=False).splitlines()
    assert dropped == "round 1: clinic dropped: declined"
    assert line.startswith("round 2/4, 2/2 institutions, accuracy 75.0%, epsilon 3.00 of 8, about ")
    assert line.endswith(" s left")


def test_a_terminal_gets_a_table(run: RunConfig) -> None:
    text = _shown(run, terminal=True)
    for word in ("clinic", "50.0%", "3.00 / 8", "round 2/4"):
        assert word in text


def test_quiet_shows_nothing(run: RunConfig) -> None:
    assert _shown(run, terminal=True, quiet=True) == _shown(run, terminal=False, quiet=True) == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_names_from_data_are_text_and_not_markup(run: RunConfig, terminal: bool) -> None:
    assert NAME in _shown(run, terminal=terminal, name=NAME)


def test_without_privacy_no_epsilon_is_shown(make_run: MakeRun) -> None:
    run = make_run(privacy={"unit": "none"})
    file = io.StringIO()
    with show(run, lambda steps: {}, Console(file=file, width=120), quiet=False) as emit:
        for event in _events("clinic"):
            emit(event)
    assert "accuracy" in file.getvalue()
    assert "epsilon" not in file.getvalue()
