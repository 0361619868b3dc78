"""Who connects while a run lasts, or is only approved then: offered it, waited for by no round, in from the next on."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from confide.common.config.run import RunConfig
from confide.common.protocol.answers import Acceptance, Update, declined, seal_envelope, waiting
from confide.common.protocol.asks import Ask
from confide.common.protocol.signatures import Identity
from confide.common.tensors import State, dump_state
from confide.common.verify.command import verify
from confide.server.home.registry import Member
from confide.server.results.run_directory import RunDirectory
from confide.server.rounds.checkpoint import load_last, save_round
from confide.server.rounds.loop import run_rounds
from confide.server.rounds.resume import Resumed
from confide.server.rounds.run_context import Event, Job, RunState
from confide.simulations.engines.grid import InProcessGrid, SkippingClock

INITIAL: State = {"head.bias": np.zeros(2, np.float32)}
LINEAGE = "ab" * 16
MARY, JUDE, LUKE = 1000, 1001, 1002
NAMES = {MARY: "mary", JUDE: "jude", LUKE: "luke"}


def _key(node: int) -> Identity:
    return Identity(node.to_bytes(32, "big"))


def _member(node: int, name: str = "") -> Member:
    return Member(name or NAMES[node], "", _key(node).public_hex(), "")


def _accept(message: Message, units: int = 2000, name: str = "") -> Message:
    node = message.metadata.dst_node_id
    return Message(Acceptance(name or NAMES[node], units, _key(node).public_hex()).content(), reply_to=message)


def _update(message: Message, name: str = "") -> Message:
    node, ask, payload = message.metadata.dst_node_id, Ask.from_content(message.content), dump_state(INITIAL)
    envelope = seal_envelope(ask, "update", (name or NAMES[node], "b" * 64), payload, f"{node:064x}")
    return Message(Update(envelope, _key(node).sign(envelope.text()), payload).content(), reply_to=message)


Answer = Callable[[Message, int], Message | None]


def _willing(message: Message, number: int) -> Message:
    return _update(message) if message.metadata.message_type == "train" else _accept(message)


class World(InProcessGrid):
    """A grid on which each node is connected in some rounds; before the first as in it.

    ``reconnected``: rounds in which a node has connected anew.
    """

    def __init__(self, connected: dict[int, Iterable[int]], answer: Answer = _willing) -> None:
        self.clock, self.connected, self.round = SkippingClock(), connected, 0
        self.reconnected: dict[int, int] = {}
        super().__init__(None, 3, self.clock, lambda message, _: (0.0, answer(message, self.round)))  # type: ignore[arg-type]
        self.sent: list[tuple[int, str, str]] = []
        self.seconds = 1.0  # that a round takes

    def get_node_ids(self) -> list[int]:
        return [node for node, rounds in self.connected.items() if self.round + 1 in rounds]

    def activated_at(self) -> dict[int, float]:
        return {node: self.clock._start + seconds for node, seconds in self.reconnected.items()} | {
            node: 0.0 for node in self.connected if node not in self.reconnected
        }

    def forget(self, ask_ids: Iterable[str]) -> None:
        for ask_id in ask_ids:
            self._waiting.pop(ask_id, None)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        for message in messages:
            self.sent.append((self.round, message.metadata.message_type, NAMES[message.metadata.dst_node_id]))
        return super().push_messages(messages)

    def offered(self, name: str) -> list[int]:
        """The rounds before which it was offered the run."""
        return [number for number, kind, to in self.sent if (kind, to) == ("query.offer", name)]

    def asked(self, name: str) -> list[int]:
        return [number + 1 for number, kind, to in self.sent if (kind, to) == ("train", name)]


@pytest.fixture
def run(make_run: Callable[..., RunConfig]) -> RunConfig:
    settings = {"num_rounds": 5, "server_optimizer": "none", "average_decay": 0.0, "min_clients": 1}
    return make_run(federation=settings, model={"sha256": "b" * 64}, local={"steps": 3, "nominal_units": 2000})


def _of_rounds(run: RunConfig, num_rounds: int) -> RunConfig:
    return run.model_copy(update={"federation": run.federation.model_copy(update={"num_rounds": num_rounds})})


def _carry_out(
    run: RunConfig, grid: World, folder: Path, members: Callable[[], Any], stop_after: int = 100
) -> RunState:
    """A server's life on this grid."""
    directory = RunDirectory.open(folder, run)

    def emit(event: Event) -> None:
        directory.record(event)
        if event["event"] == "round":
            grid.round = event["round"]
            grid.clock.sleep(grid.seconds)

    def save(number: int, state: Any, accepted: list[dict[str, str]]) -> None:
        save_round(folder / "rounds", number, state, accepted, LINEAGE)

    saved, damaged = load_last(folder / "rounds", LINEAGE)
    resumed = Resumed(saved, damaged, directory.institutions(run), directory.rounds())
    job = Job(run, LINEAGE, INITIAL, None, emit, save, grid.clock, 0, members(), members, resumed=resumed)
    job = replace(job, is_stopped=lambda: grid.round >= stop_after)
    state = RunState(job)
    run_rounds(state, grid)
    directory.write_privacy("completed", run, state.everybody(), simulated=False)
    return state


def _everybody() -> dict[int, Member]:
    return {node: _member(node) for node in NAMES}


def _privacy(folder: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads((folder / "privacy.json").read_text(encoding="utf-8"))["institutions"]
    return {row["institution"]: row for row in rows}


def _later(folder: Path) -> list[tuple[int, dict[str, int], dict[str, str]]]:
    events = RunDirectory.at(folder).events()
    return [
        (event["round"], event["declared_units"], event["others"])
        for event in events
        if event["event"] == "offered_later"
    ]


def test_a_newcomer_is_offered_the_run_once_and_trains_from_the_next_round_on(run: RunConfig, tmp_path: Path) -> None:
    grid = World({MARY: range(9), JUDE: range(3, 9)})
    state = _carry_out(run, grid, tmp_path, _everybody)
    assert grid.offered("jude") == [2]
    assert grid.asked("mary") == [1, 2, 3, 4, 5]
    assert grid.asked("jude") == [4, 5]
    assert _later(tmp_path) == [(4, {"jude": 2000}, {})]
    assert {name: row["num_steps"] for name, row in _privacy(tmp_path).items()} == {"mary": 15, "jude": 6}
    assert {item.name: item.accepted for item in state.everybody()} == {"mary": 5, "jude": 2}
    rounds = RunDirectory.at(tmp_path).rounds()
    assert [line["accepted"] for line in rounds] == [1, 1, 1, 2, 2]
    verify(tmp_path)


def test_no_round_waits_for_who_is_only_being_offered_the_run(run: RunConfig, tmp_path: Path) -> None:
    silent: Answer = lambda message, number: None if message.metadata.dst_node_id == JUDE else _willing(message, number)  # noqa: E731
    grid = World({MARY: range(9), JUDE: range(2, 9)}, silent)
    began = grid.clock.now()
    _carry_out(run, grid, tmp_path, _everybody)
    assert grid.clock.now() - began < 61 + 5, "a minute at the first offer, for who is on the way"
    assert grid.offered("jude") == [1], "until the offer's deadline it is not made again"
    assert grid.asked("jude") == []


def test_an_answer_that_takes_rounds_is_taken_when_it_comes(run: RunConfig, tmp_path: Path) -> None:
    """Its records are read and encoded first."""

    class Slow(World):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            waits = self.round < 3
            ready = {name for name in message_ids if not (waits and name in self._waiting and self._is_late(name))}
            return super().pull_messages([name for name in message_ids if name in ready])

        def _is_late(self, name: str) -> bool:
            meta = self._waiting[name].metadata
            return (meta.message_type, meta.dst_node_id) == ("query.offer", JUDE)

    grid = Slow({MARY: range(9), JUDE: range(2, 9)})
    _carry_out(run, grid, tmp_path, _everybody)
    assert (grid.offered("jude"), grid.asked("jude")) == ([1], [4, 5])


def test_a_run_that_waits_for_approval_is_offered_again_after_a_minute(run: RunConfig, tmp_path: Path) -> None:
    """Again and again, until it is approved."""

    def answer(message: Message, number: int) -> Message | None:
        waits = message.metadata.dst_node_id == JUDE and number < 4
        return Message(waiting(), reply_to=message) if waits else _willing(message, number)

    grid = World({MARY: range(9), JUDE: range(9)}, answer)
    grid.seconds = 40.0
    _carry_out(_of_rounds(run, 8), grid, tmp_path, _everybody)
    assert (grid.offered("jude"), grid.asked("jude")) == ([0, 2, 5], [7, 8])
    assert _later(tmp_path) == [(7, {"jude": 2000}, {})], "what it had said before is not said again"


def test_who_has_declined_is_asked_again_at_its_next_connection_and_not_before(run: RunConfig, tmp_path: Path) -> None:
    def answer(message: Message, number: int) -> Message | None:
        no = message.metadata.dst_node_id == JUDE and number < 2
        return Message(declined(), reply_to=message) if no else _willing(message, number)

    grid = World({MARY: range(9), JUDE: range(9)}, answer)
    grid.seconds = 100.0

    class Mended(dict[int, float]):
        def items(self) -> Any:
            return {JUDE: 150.0}.items() if grid.round >= 2 else {}.items()

        def __contains__(self, node: object) -> bool:
            return node == JUDE and grid.round >= 2

    grid.reconnected = Mended()
    _carry_out(run, grid, tmp_path, _everybody)
    assert grid.offered("jude") == [0, 2]
    assert grid.asked("jude") == [4, 5]


def test_who_is_approved_at_the_server_in_mid_run_is_offered_it(run: RunConfig, tmp_path: Path) -> None:
    grid = World(dict.fromkeys(NAMES, range(9)))

    def members() -> dict[int, Member]:
        return {node: one for node, one in _everybody().items() if node != JUDE or grid.round >= 2}

    _carry_out(run, grid, tmp_path, members)
    assert (grid.offered("jude"), grid.asked("jude")) == ([2], [4, 5])
    assert (grid.offered("luke"), grid.asked("luke")) == ([0], [1, 2, 3, 4, 5])


def test_a_run_that_does_not_name_one_or_is_in_its_last_round_is_not_offered(run: RunConfig, tmp_path: Path) -> None:
    grid = World({MARY: range(9), JUDE: range(9), LUKE: range(5, 9)})
    _carry_out(run, grid, tmp_path, lambda: {MARY: _member(MARY), LUKE: _member(LUKE)})
    assert (grid.offered("jude"), grid.offered("luke")) == ([], [])


def test_a_size_far_from_what_the_run_assumes_is_told_as_at_the_first_offer(run: RunConfig, tmp_path: Path) -> None:
    def answer(message: Message, number: int) -> Message | None:
        small = message.metadata.dst_node_id == JUDE
        return _accept(message, 10) if small else _willing(message, number)

    grid = World({MARY: range(9), JUDE: range(2, 9)}, answer)
    _carry_out(run, grid, tmp_path, _everybody)
    [(number, units, others)] = _later(tmp_path)
    assert (number, units) == (3, {})
    assert "declared_units" in others["jude"]
    assert (grid.offered("jude"), grid.asked("jude")) == ([1], [])


def test_new_keys_of_an_institution_go_on_with_its_account(run: RunConfig, tmp_path: Path) -> None:
    """Revoked and approved anew it is another node, and the same people."""

    def answer(message: Message, number: int) -> Message | None:
        name = "mary" if message.metadata.dst_node_id == LUKE else ""
        offer = message.metadata.message_type != "train"
        return _accept(message, name=name) if offer else _update(message, name)

    grid = World({MARY: range(3), JUDE: range(9), LUKE: range(3, 9)}, answer)

    def members() -> dict[int, Member]:
        new = grid.round >= 2
        return {JUDE: _member(JUDE)} | ({LUKE: _member(LUKE, "mary")} if new else {MARY: _member(MARY)})

    state = _carry_out(run, grid, tmp_path, members)
    assert (grid.asked("mary"), grid.asked("luke")) == ([1, 2], [4, 5])
    assert {node: item.name for node, item in state.institutions.items()} == {JUDE: "jude", LUKE: "mary"}
    assert {name: row["num_steps"] for name, row in _privacy(tmp_path).items()} == {"mary": 12, "jude": 15}
    verify(tmp_path)


def test_a_newcomer_is_counted_and_offered_the_run_in_a_resumed_one(run: RunConfig, tmp_path: Path) -> None:
    run, first = _of_rounds(run, 6), World({MARY: range(9), JUDE: range(2, 9)})
    _carry_out(run, first, tmp_path, _everybody, stop_after=3)
    assert first.asked("jude") == [3]
    second = World({MARY: range(9), JUDE: [], LUKE: range(5, 9)})
    second.round = 3
    state = _carry_out(run, second, tmp_path, _everybody)
    assert (second.asked("mary"), second.asked("jude"), second.asked("luke")) == ([4, 5, 6], [], [6])
    assert {item.name: item.num_steps for item in state.everybody()} == {"mary": 18, "jude": 3, "luke": 3}
    assert {name: row["num_steps"] for name, row in _privacy(tmp_path).items()} == {"mary": 18, "jude": 3, "luke": 3}
    verify(tmp_path)
