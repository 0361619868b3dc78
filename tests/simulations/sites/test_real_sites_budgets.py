"""A run with real sites uses what their ledgers have left, whatever ended the run before, and then is exit 4."""

import functools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from support.installations import GENEROUS
from support.real_sites import account_of, reserved_by, set_policy

from confide.client.site.installation import open_site
from confide.simulations.engines.federation import simulate
from confide.simulations.engines.grid import Answer, no_faults
from confide.simulations.studies import study

Confide = Callable[..., tuple[int, str, str]]
Settings = Callable[..., list[str]]
Federate = Callable[..., tuple[int, str, str]]


def test_a_second_run_of_a_study_that_used_its_steps_is_exit_4(
    federate: Federate, sites: dict[str, Path], tmp_path: Path
) -> None:
    assert federate()[0] == 0
    code, _, errors = federate(out="second")
    assert code == 4, errors
    assert "all 2 steps of study small are spent" in errors
    assert [reserved_by(path) for path in sites.values()] == [2, 2, 2]
    assert not (tmp_path / "second").exists(), "who is refused leaves nothing"


def test_a_new_study_that_does_not_fit_beside_the_old_one_is_exit_4(federate: Federate, sites: dict[str, Path]) -> None:
    assert federate()[0] == 0
    for path in sites.values():
        set_policy(path, max_epsilon=account_of(path).epsilon_spent(GENEROUS["max_delta"]) + 0.001)
    code, _, errors = federate("study.name=test", out="second")
    assert code == 4, errors
    assert "policy.max_epsilon" in errors
    assert [reserved_by(path, "test") for path in sites.values()] == [0, 0, 0]


def _interrupt_in(number: int) -> Any:
    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        if message.metadata.group_id == str(number):
            raise KeyboardInterrupt
        return no_faults(message, answer)

    return functools.partial(simulate, faults=fault)


@pytest.mark.parametrize(
    ("num_rounds", "after"),
    [
        (4, 3),
        (5, 4),
        (6, 2),
    ],
)
def test_an_interrupted_run_leaves_fewer_rounds_and_the_next_is_exit_4(
    federate: Federate,
    sites: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_rounds: int,
    after: int,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(study, "simulate", _interrupt_in(after + 1))
        assert federate(f"federation.num_rounds={num_rounds}")[0] == 130
    assert [reserved_by(path) for path in sites.values()] == [after] * 3
    code, _, errors = federate(f"federation.num_rounds={num_rounds}", out="second")
    assert [reserved_by(path) for path in sites.values()] == [num_rounds] * 3, "the rest was used, and no more"
    assert code == 4, errors
    assert f"{num_rounds} of the {num_rounds} steps" in errors


@pytest.mark.waits
def test_a_killed_run_is_repeated_with_what_is_left(
    federate: Federate,
    confide: Confide,
    settings: Settings,
    run_file: Path,
    sites: dict[str, Path],
    tmp_path: Path,
) -> None:
    """SIGKILL in mid-round: every ledger opens, is whole, and gives out no step twice."""
    named = [part for path in sites.values() for part in ("--site", str(path))]
    rounds = settings("federation.num_rounds=12")
    command = [sys.executable, "-m", "confide.common.cli.main", "simulate", str(run_file), *named, *rounds, "--quiet"]
    events = tmp_path / "killed" / "events.jsonl"
    with subprocess.Popen([*command, "--out", str(events.parent)]) as process:
        while not (events.is_file() and '"round": 5' in events.read_text(encoding="utf-8")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert all(4 <= reserved_by(path) < 12 for path in sites.values())
    for path in sites.values():
        assert confide("client", "ledger", "verify", "--site", path)[0] == 0
    code, _, errors = federate("federation.num_rounds=12", out="second")
    assert code == 4, errors
    assert {reserved_by(path) for path in sites.values()} == {12}
    sealed = [
        row["sha256"] for path in sites.values() for row, _ in open_site(path).ledger.rows() if row["kind"] == "seal"
    ]
    assert len(set(sealed)) == len(sealed) >= 3 * 11
