"""Runs that crash and continue: nothing that was asked is forgotten, and nothing counts twice."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from flwr.app import Message
from support.rounds import (
    INITIAL,
    FakeGrid,
    MakeRun,
    Server,
    asked_in,
    counts,
    honest,
    members_of,
    rounds_of,
    silent,
    update,
    validating,
)

from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError
from confide.common.protocol.answers import declined
from confide.common.protocol.asks import Ask
from confide.common.tensors import dump_state
from confide.common.training import optimizer
from confide.common.verify.command import verify
from confide.server.results.run_directory import RunDirectory
from confide.server.rounds.checkpoint import Saved, load_last, save_round
from confide.server.rounds.resume import Resumed
from confide.server.rounds.roster import Institution, Members
from confide.server.rounds.run_context import Event, RunState


def test_a_resumed_run_asks_and_counts_as_if_it_had_not_stopped(make: MakeRun) -> None:
    run = make(num_rounds=6, participation=0.3)
    whole, first, second = FakeGrid(10, honest()), FakeGrid(10, honest()), FakeGrid(10, honest())
    through = Server(run, whole)
    through.start()
    stopped = Server(run, first)
    stopped.state.job = replace(stopped.state.job, is_stopped=lambda: stopped.state.round == 3)
    stopped.start()
    before = {item.name: item for item in stopped.state.everybody()}
    saved = Saved(3, stopped.state.trained, [])
    resumed, lines = Server(run, second), rounds_of(stopped)
    resumed.state = RunState(replace(resumed.state.job, resumed=Resumed(saved, {}, before, lines)))
    resumed.start()
    assert asked_in(first) + asked_in(second) == asked_in(whole)
    assert [item.num_steps for item in resumed.state.institutions.values()] == [
        item.num_steps for item in through.state.institutions.values()
    ]


def test_a_round_that_is_asked_again_counts_as_the_one_retry_that_it_may_cost(make: MakeRun) -> None:
    """Round 2 had ended, and its checkpoint is damaged. More than its plan nobody is ever charged."""
    run = make(num_rounds=4)
    before = {name: Institution(name, 100) for name in ("site-0", "site-1")}
    for item in before.values():
        for number in (1, 2, 2):
            item.ask("update", number, run)
        assert item.num_steps == 9
    saved, lines = Saved(1, optimizer.start(INITIAL), []), [{"round": 1, "accepted": 2}]
    server = Server(run, FakeGrid(2, honest()))
    server.state = RunState(replace(server.state.job, resumed=Resumed(saved, {}, before, lines)))
    server.start()
    assert asked_in(server.grid) == [(number, node) for number in (2, 3, 4) for node in (1000, 1001)]  # type: ignore[arg-type]
    assert [event["num_steps"]["site-0"] for event in rounds_of(server)] == [9, 12, 12], (
        "2: its retry is spent; 4: a plan"
    )


class _Crash(BaseException):
    """kill -9."""


def _live(
    run: RunConfig, folder: Path, grid: FakeGrid, crash: tuple[str, int] | None = None, members: Members | None = None
) -> Server:
    """One life of a server, until it is killed at an event, before that is written down, or comes to the end."""
    directory, server = RunDirectory.open(folder, run), Server(run, grid, evaluate=True)

    def emit(event: Event) -> None:
        if crash and (event["event"], event.get("round", 0)) >= crash and event["event"] == crash[0]:
            raise _Crash
        directory.record(event)

    def save(number: int, state: Any, accepted: list[dict[str, str]]) -> None:
        save_round(folder / "rounds", number, state, accepted, server.state.job.lineage)

    saved, damaged = load_last(folder / "rounds", "ab" * 16)
    resumed = Resumed(saved, damaged, directory.institutions(run), directory.rounds())
    job = replace(server.state.job, emit=emit, save=save, resumed=resumed, members=members)
    server.state = RunState(job)
    with contextlib.suppress(_Crash):
        server.start()
    assert server.state.finished == (crash is None)
    return server


def _until_it_crashes(run: RunConfig, folder: Path, away: set[int], crash: tuple[str, int] | None) -> list[Message]:
    """One life of a server with some of six institutions; what it sent."""

    def answer(message: Message) -> Message | None:
        if message.metadata.dst_node_id in away:
            return Message(declined(), reply_to=message) if message.metadata.group_id == "0" else None
        return counts()(message)

    grid = FakeGrid(6, answer)
    server = _live(run, folder, grid, crash)
    if crash is None:
        RunDirectory.open(folder, run).write_privacy("completed", run, server.state.everybody(), simulated=False)
    return grid.sent


def test_privacy_json_counts_every_ask_of_a_run_that_crashes_and_goes_on(make: MakeRun, tmp_path: Path) -> None:
    """Participation 0.5, three crashes, each time somebody else is away: nothing that was asked is forgotten."""
    run, folder = validating(make, every=2, num_rounds=12, participation=0.5), tmp_path / "run"
    lives: list[tuple[set[int], tuple[str, int] | None]] = [
        ({1000}, ("accepted", 3)),
        ({1005}, ("round", 6)),
        ({1001, 1002}, ("round_started", 9)),
        ({1003}, None),
    ]
    asked: dict[str, Counter[tuple[str, str]]] = {f"site-{number}": Counter() for number in range(6)}
    for away, crash in lives:
        for message in _until_it_crashes(run, folder, away, crash):
            if (meta := message.metadata).message_type != "query.offer":
                asked[f"site-{meta.dst_node_id - 1000}"][meta.message_type, meta.group_id] += 1
    rows = {row["institution"]: row for row in json.loads((folder / "privacy.json").read_text())["institutions"]}
    assert rows.keys() == {name for name, asks in asked.items() if asks} == set(asked)
    assert max(max(asks.values()) for asks in asked.values()) > 1, "rounds were asked again"
    for name, asks in asked.items():
        spent = Counter({kind: sum(min(2, times) for (of, _), times in asks.items() if of == kind) for kind, _ in asks})
        assert rows[name]["num_steps"] == min(run.num_steps, 3 * spent["train"]) < run.num_steps
        assert rows[name]["num_releases"] == min(run.validation_releases, spent["evaluate"])
        assert rows[name]["plan"]["declared_units"] == 100
    verify(folder)
    content = {**json.loads((folder / "privacy.json").read_text()), "institutions": list(rows.values())[1:]}
    (folder / "privacy.json").write_text(json.dumps(content))
    with pytest.raises(typer.Exit):
        verify(folder)


@pytest.mark.parametrize("killed", [("validation_started", 4), ("round", 4), None])
def test_a_run_killed_after_its_last_checkpoint_ends_with_what_it_measured(
    make: MakeRun, tmp_path: Path, killed: tuple[str, int] | None
) -> None:
    """In the last counts, or in the export; with nobody's consent: one institution is there, one away, one revoked."""
    run = validating(make, every=2, num_rounds=4, min_clients=3)
    first = _live(run, tmp_path, FakeGrid(3, counts()), killed)
    away = FakeGrid(3, lambda message: counts()(message) if message.metadata.dst_node_id == 1001 else None)
    again = _live(run, tmp_path, away, None, members_of(1000, 1001))
    assert {message.metadata.message_type for message in away.sent} == ({"evaluate"} if killed else set())
    np.testing.assert_array_equal(again.evaluated[-1]["head.bias"], first.state.trained.average["head.bias"])
    assert again.state.scores is not None
    assert again.state.bytes_per_client_round == len(dump_state(INITIAL))
    assert {node: item.accepted for node, item in again.state.institutions.items()} == {1000: 4, 1001: 4}
    assert [(item.name, item.accepted) for item in again.state.gone] == [("site-2", 4)]
    assert [line["round"] for line in RunDirectory.open(tmp_path, run).rounds()] == [1, 2, 3, 4]


def test_a_restarted_run_waits_for_those_who_took_part_though_it_offers_nothing(make: MakeRun, tmp_path: Path) -> None:
    """Else their adapter, and the last counts, would go to nodes that Flower does not take for online yet."""

    class _Returning(FakeGrid):
        def get_node_ids(self) -> Iterable[int]:
            self.looks = getattr(self, "looks", 0) + 1
            return super().get_node_ids() if self.looks > 5 else []

        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            assert self.looks > 5, "nobody is there yet"
            return super().push_messages(messages)

    run = validating(make, every=2, num_rounds=4)
    _live(run, tmp_path, FakeGrid(3, counts()), ("validation_started", 4))
    again = _Returning(3, counts())
    _live(run, tmp_path, again, None, members_of(1000, 1001, 1002))
    assert {message.metadata.dst_node_id for message in again.sent} == {1000, 1001, 1002}
    assert again.looks > 5


def test_what_a_crash_took_of_a_round_after_its_checkpoint_is_made_up(make: MakeRun, tmp_path: Path) -> None:
    """Its counts, from those who trained in it and no other, and its line; nobody trains it again."""
    run = validating(make, every=2, num_rounds=4, participation=0.5)
    first, second = FakeGrid(6, counts()), FakeGrid(6, counts())
    whole = _live(run, tmp_path / "whole", first)
    trained = {node for number, node in asked_in(first) if number == 2}
    _live(run, tmp_path / "killed", FakeGrid(6, counts()), ("validation_started", 2))
    killed = _live(run, tmp_path / "killed", second)
    assert {number for number, _ in asked_in(second)} == {3, 4}
    assert {node for number, node in asked_in(second, "evaluate") if number == 2} == trained
    lines = [RunDirectory.open(tmp_path / name, run).rounds() for name in ("whole", "killed")]
    for name in ("round", "accepted", "dropped", "validation", "expected_units"):
        assert [line.get(name) for line in lines[0]] == [line.get(name) for line in lines[1]], name
    assert [item.accepted for item in killed.state.everybody()] == [item.accepted for item in whole.state.everybody()]


def test_rounds_and_answers_count_once_however_often_a_round_is_asked(make: MakeRun, tmp_path: Path) -> None:
    """Killed with one answer in, then before a round's line, then with the last checkpoint damaged."""
    run = make(num_rounds=4)
    _live(run, tmp_path, FakeGrid(3, silent((1001, "1"), (1002, "2"))), ("dropped", 2))
    _live(run, tmp_path, FakeGrid(3, silent((1000, "2"))), ("round", 2))
    _live(run, tmp_path, FakeGrid(3, counts()), ("round_started", 4))
    (tmp_path / "rounds" / "0003" / "adapter.safetensors").write_bytes(b"damaged")
    server = _live(run, tmp_path, FakeGrid(3, counts()))
    assert [line["round"] for line in RunDirectory.open(tmp_path, run).rounds()] == [1, 2, 3, 4]
    known = {item.name: (item.accepted, item.dropped) for item in server.state.everybody()}
    late = "no answer before the deadline"
    assert known == {"site-0": (3, [f"round 2: {late}"]), "site-1": (3, [f"round 1: {late}"]), "site-2": (4, [])}


def test_a_round_with_a_damaged_checkpoint_takes_again_only_what_was_accepted(make: MakeRun, tmp_path: Path) -> None:
    """Site-1 has another update now; site-2's had not come in time."""
    run = make(num_rounds=4)
    _live(run, tmp_path, FakeGrid(3, silent((1002, "3"))), ("round_started", 4))
    (tmp_path / "rounds" / "0003" / "adapter.safetensors").write_bytes(b"damaged")

    def answer(message: Message) -> Message | None:
        another = (message.metadata.dst_node_id, message.metadata.group_id) == (1001, "3")
        return update(message, 0.015) if another else counts()(message)

    _live(run, tmp_path, FakeGrid(3, answer))
    events = RunDirectory.open(tmp_path, run).events()
    refused = "another update than the one that was accepted before the checkpoint was damaged"
    dropped = [(event["round"], event["institution"]) for event in events if event.get("reason") == refused]
    assert dropped == [(3, "site-1"), (3, "site-2")]


def test_an_answer_to_a_round_that_went_on_without_it_does_not_count(make: MakeRun, tmp_path: Path) -> None:
    """The server was killed before the round's checkpoint, and who had answered is away since."""
    run = make(num_rounds=4)
    _live(run, tmp_path, FakeGrid(3, silent((1001, "2"))), ("dropped", 2))
    for crash in (("round_started", 3), None):
        server = _live(run, tmp_path, FakeGrid(2, counts()), crash)
        assert [(item.name, item.accepted) for item in server.state.gone] == [("site-2", 1)]


def test_a_round_without_quorum_is_not_asked_again_once_another_was(make: MakeRun, tmp_path: Path) -> None:
    """With a quorum now it would change the input of the round that was open, which institutions have answered."""
    run = make(num_rounds=6, min_clients=3)
    first, second = FakeGrid(3, silent((1001, "3"), (1002, "4"))), FakeGrid(3, counts())
    _live(run, tmp_path, first, ("accepted", 5))
    _live(run, tmp_path, second)
    assert {number for number, _ in asked_in(second)} == {5, 6}
    fifth = [message for grid in (first, second) for message in grid.sent if message.metadata.group_id == "5"]
    assert len({Ask.from_content(message.content).input_sha256 for message in fifth}) == 1


def test_a_run_that_learnt_nothing_asks_its_last_round_again(make: MakeRun, tmp_path: Path) -> None:
    run, grid = make(num_rounds=2), FakeGrid(1, counts())
    with pytest.raises(ConfideError, match="nothing was learnt"):
        _live(run, tmp_path, FakeGrid(1, silent((1000, "1"), (1000, "2"))))
    _live(run, tmp_path, grid)
    assert {number for number, _ in asked_in(grid)} == {2}
