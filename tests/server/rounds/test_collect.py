import time
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from confide.server.rounds.collect import SystemClock, collect


class _Clock:
    """Time that passes in sleep only."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class _Grid:
    """Gives out each reply at its time; ``(second, message id, node)``."""

    def __init__(self, clock: _Clock, replies: list[tuple[float, str, int]]) -> None:
        self.clock, self.replies = clock, replies

    def push_messages(self, messages: list[Any]) -> list[str]:
        return [f"m{message.metadata.dst_node_id}" for message in messages]

    def pull_messages(self, message_ids: list[str]) -> list[Any]:
        due = [r for r in self.replies if r[0] <= self.clock.now() and r[1] in message_ids]
        self.replies = [r for r in self.replies if r not in due]
        return [_reply(message_id, node) for _, message_id, node in due]


def _reply(message_id: str, node: int, *, failed: bool = False) -> Any:
    return SimpleNamespace(
        metadata=SimpleNamespace(reply_to_message_id=message_id, src_node_id=node), has_error=lambda: failed
    )


def _collect(replies: list[tuple[float, str, int]], deadline: float = 10.0) -> tuple[list[int], float]:
    clock = _Clock()
    asks = [SimpleNamespace(metadata=SimpleNamespace(dst_node_id=node)) for node in (1, 2, 3)]
    collected = collect(_Grid(clock, replies), asks, deadline, clock)  # type: ignore[arg-type]
    return [reply.metadata.src_node_id for reply in collected], clock.now()


def test_a_round_ends_when_all_have_answered() -> None:
    nodes, ended = _collect([(0, "m2", 2), (3, "m1", 1), (1, "m3", 3)])
    assert nodes == [2, 3, 1]
    assert ended == pytest.approx(3, abs=0.2)


def test_a_round_ends_at_its_deadline() -> None:
    nodes, ended = _collect([(0, "m2", 2), (30, "m1", 1)], deadline=5.0)
    assert nodes == [2]
    assert ended == pytest.approx(5, abs=0.2)


def test_a_deadline_in_the_past_waits_for_nobody() -> None:
    assert _collect([(0, "m1", 1)], deadline=0.0) == ([], 0.0)


def test_a_second_reply_to_the_same_ask_is_not_waited_for() -> None:
    assert _collect([(0, "m1", 1), (1, "m1", 1), (2, "m2", 2), (2, "m3", 3)])[0] == [1, 2, 3]


def test_a_reply_in_another_s_name_counts_for_nobody() -> None:
    assert _collect([(0, "m1", 2), (1, "m2", 2), (1, "m3", 3)])[0] == [2, 3]


def test_a_reply_in_another_s_name_does_not_displace_the_true_one() -> None:
    assert sorted(_collect([(0, "m1", 2), (1, "m1", 1), (1, "m2", 2), (1, "m3", 3)])[0]) == [1, 2, 3]


def test_a_reply_to_nothing_that_was_asked_is_dropped() -> None:
    assert _collect([(0, "m9", 1), (1, "m1", 1), (1, "m2", 2), (1, "m3", 3)])[0] == [1, 2, 3]


def test_the_system_clock_tells_the_time() -> None:
    before = time.time()
    SystemClock().sleep(0.001)
    assert before < SystemClock().now() <= time.time()


class _NetworkGrid:
    """One node that loses the first asks: it comes back at ``returns``, or Flower reports errors in its place."""

    def __init__(self, clock: _Clock, answers: list[str], returns: float, seconds_to_push: float) -> None:
        self.clock, self.answers, self.returns, self.seconds_to_push = clock, answers, returns, seconds_to_push
        self.pushed: list[Message] = []
        self.forgotten: list[str] = []
        self.told: list[tuple[int, int]] = []

    def push_messages(self, messages: list[Message]) -> list[str]:
        self.pushed += messages
        self.clock.sleep(self.seconds_to_push)
        return [f"ask {len(self.pushed)}"]

    def pull_messages(self, message_ids: list[str]) -> list[Any]:
        answer = self.answers[len(self.pushed) - 1]
        self.answers[len(self.pushed) - 1] = "lost"  # a reply comes once
        return [] if answer == "lost" else [_reply(message_ids[0], 1, failed=answer == "error")]

    def activated_at(self) -> dict[int, float]:
        return {1: self.returns} if 0 <= self.returns <= self.clock.now() else {}

    def forget(self, ask_ids: Any) -> None:
        self.forgotten += list(ask_ids)


def _over_a_network(
    answers: list[str], returns: float = -1.0, seconds_to_push: float = 0.0
) -> tuple[list[Any], _NetworkGrid]:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # a Message needs them
    clock = _Clock()
    grid = _NetworkGrid(clock, answers, returns, seconds_to_push)
    ask = Message(RecordDict({"ask": ConfigRecord({"round": 3})}), 1, "train", ttl=60.0, group_id="3")

    def again(message: Message) -> None:
        grid.told.append((message.metadata.dst_node_id, len(grid.pushed)))

    return list(collect(grid, [ask], 10.0, clock, again)), grid  # type: ignore[arg-type]


def test_who_connects_anew_is_asked_again_with_the_same_content() -> None:
    replies, grid = _over_a_network(["lost", "good"], returns=2.0)
    assert len(replies) == 1
    first, second = grid.pushed
    assert first.content == second.content
    assert first is not second
    assert grid.forgotten == ["ask 1"]
    assert grid.told == [(1, 1)], "told before it goes out once more"


def test_who_connects_anew_while_the_asks_go_out_is_asked_again() -> None:
    """Its own may have been handed to a connection that broke; fifty take some seconds on a busy machine."""
    replies, grid = _over_a_network(["lost", "good"], returns=0.5, seconds_to_push=1.0)
    assert len(replies) == 1
    assert len(grid.pushed) == 2


def test_an_error_in_a_client_s_place_is_asked_again_three_times_and_no_more() -> None:
    replies, grid = _over_a_network(["error", "good"], returns=0.0)
    assert [reply.has_error() for reply in replies] == [False]
    assert grid.told == [(1, 1)]
    replies, grid = _over_a_network(["error"] * 9, returns=0.0)
    assert grid.told == [(1, 1), (1, 2), (1, 3)]
    assert [reply.has_error() for reply in replies] == [True]
    assert len(grid.pushed) == 4


def test_who_has_not_connected_since_the_start_is_asked_once_it_connects() -> None:
    """Flower refuses an ask for it, at once and however often."""
    replies, grid = _over_a_network(["error", "good"], returns=5.0)
    assert [reply.has_error() for reply in replies] == [False]
    assert grid.clock.now() >= 5.0
    assert grid.told == [(1, 1)]
    replies, grid = _over_a_network(["error"] * 9)
    assert (replies, grid.told, grid.forgotten) == ([], [], ["ask 1"])


def test_an_ask_that_nobody_answered_is_forgotten_at_the_deadline() -> None:
    replies, grid = _over_a_network(["lost"])
    assert (replies, grid.forgotten) == ([], ["ask 1"])
