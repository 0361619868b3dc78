"""A training round over a fake Grid: which institutions are asked, charged, accepted or dropped."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from support.rounds import (
    FakeGrid,
    MakeRun,
    Reply,
    Server,
    accept,
    asked_in,
    counts,
    honest,
    rounds_of,
    update,
    validating,
)

from confide.common.errors import ConfideError
from confide.common.protocol.answers import Envelope, declined
from confide.common.protocol.asks import Ask
from confide.common.protocol.signed import read_receipt
from confide.server.rounds.participation import draw
from confide.server.rounds.roster import Institution
from confide.server.rounds.round_asks import make_ask, messages_of, record_asks, recording_repeats


def test_a_round_asks_everyone_and_averages(make: MakeRun) -> None:
    grid = FakeGrid(3, honest())
    server = Server(make(), grid)
    result = server.start()
    np.testing.assert_allclose(result["head.bias"], [0.04, 0.04], rtol=1e-6)
    assert [message.metadata.message_type for message in grid.sent] == ["query.offer"] * 3 + ["train"] * 6
    assert [number for number, _ in server.saved] == [1, 2]
    assert all(item.num_steps == 6 and item.accepted == 2 for item in server.state.institutions.values())
    asks = [Ask.from_content(message.content) for message in grid.sent]
    assert {ask.lineage for ask in asks} == {"ab" * 16}
    assert [ask.round for ask in asks] == [0] * 3 + [1] * 3 + [2] * 3
    assert len({ask.input_sha256 for ask in asks}) == 3
    assert all(ask.adapter == b"" for ask in asks[:3]), "an offer carries no adapter"
    assert all("simulation" not in ask.run_json for ask in asks)
    assert {message.metadata.ttl for message in grid.sent[3:]} == {server.run.federation.deadline_seconds + 600}


def test_only_who_is_drawn_is_asked_charged_or_dropped(make: MakeRun) -> None:
    """Nobody answers in round 2: only those it asked are dropped in it."""

    def answer(message: Message) -> Message | None:
        return None if message.metadata.group_id == "2" else honest()(message)

    grid = FakeGrid(10, answer)
    server = Server(make(num_rounds=4, participation=0.3), grid)
    server.start()
    asked, names = asked_in(grid), {node: f"site-{node - 1000}" for node in range(1000, 1010)}
    by_round = {number: {names[node] for of, node in asked if of == number} for number in (1, 2, 3, 4)}
    assert by_round == {
        number: draw(names.values(), server.run.federation, server.run.study.seed, number) for number in by_round
    }
    assert [len(drawn) for drawn in by_round.values()] == [3] * 4
    for node, item in server.state.institutions.items():
        times = [number for number, of in asked if of == node]
        assert (item.num_steps, item.accepted) == (3 * len(times), len(set(times) - {2}))
        assert item.dropped == (["round 2: no answer before the deadline"] if 2 in times else [])
    told = {event["round"]: set(event["institutions"]) for event in server.events if event["event"] == "round_started"}
    assert told == by_round
    assert {event["institution"] for event in server.events if event["event"] == "dropped"} == by_round[2]


def test_the_mean_and_the_quorum_are_of_those_who_were_asked(make: MakeRun) -> None:
    def answer(message: Message) -> Message | None:
        return accept(message) if message.metadata.group_id == "0" else update(message, 0.04)

    server = Server(make(num_rounds=1, participation=0.3, min_clients=3), FakeGrid(10, answer))
    np.testing.assert_allclose(server.start()["head.bias"], [0.04, 0.04], rtol=1e-6)
    assert "no_quorum" not in {event["event"] for event in server.events}


def test_declared_sizes_weigh(make: MakeRun) -> None:
    def answer(message: Message) -> Message:
        if message.metadata.group_id == "0":
            return accept(message, units=300 if message.metadata.dst_node_id == 1000 else 100)
        return update(message, 0.04 if message.metadata.dst_node_id == 1000 else 0.0)

    server = Server(make(num_rounds=1, weights="declared"), FakeGrid(2, answer))
    np.testing.assert_allclose(server.start()["head.bias"], [0.03, 0.03], rtol=1e-6)


def test_the_text_of_an_error_is_never_read(make: MakeRun) -> None:
    """Flower sends exception texts verbatim, and they can hold a private text."""

    def answer(message: Message) -> Message:
        if (message.metadata.dst_node_id, message.metadata.group_id) == (1001, "1"):
            return Message(Error(code=2, reason="ValueError: Mrs Canary"), reply_to=message)
        return honest()(message)

    server = Server(make(), FakeGrid(2, answer))
    server.start()
    assert server.state.institutions[1001].accepted == 1
    assert "error 2" in str(server.events)
    assert "Canary" not in str(server.events) + str(server.state.institutions)


def test_declined_is_a_reason_and_no_quorum_changes_nothing(make: MakeRun) -> None:
    def answer(message: Message) -> Message:
        if (message.metadata.dst_node_id, message.metadata.group_id) == (1001, "1"):
            return Message(RecordDict({"declined": ConfigRecord()}), reply_to=message)
        return honest()(message)

    server = Server(make(min_clients=2), FakeGrid(2, answer))
    server.start()
    assert {"event": "no_quorum", "round": 1, "accepted": 1} in server.events
    assert [number for number, _ in server.saved] == [2]
    assert server.state.trained.round == 1
    rounds = [event for event in server.events if event["event"] == "round"]
    assert [event["dropped"] for event in rounds] == [["site-1: declined"], []]
    assert [event["num_steps"] for event in rounds] == [{"site-0": 3, "site-1": 3}, {"site-0": 6, "site-1": 6}]


def test_an_update_that_is_larger_than_clip_and_noise_allow_is_dropped(make: MakeRun) -> None:
    server = Server(make(), FakeGrid(2, honest(lambda node: 1e5 if node == 1001 else 0.01)))
    server.start()
    assert [item.accepted for item in server.state.institutions.values()] == [2, 0]
    assert all("norm" in reason for reason in server.state.institutions[1001].dropped)


def test_one_reply_for_each_ask(make: MakeRun) -> None:
    """The same reply twice, and a reply that nobody asked for, count once and never."""

    class Doubling(FakeGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            replies = list(super().pull_messages(message_ids))
            return [*replies, *replies]

    server = Server(make(), Doubling(2, honest()))
    server.start()
    assert [item.accepted for item in server.state.institutions.values()] == [2, 2]


def test_a_straggler_costs_no_time(make: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError(f"slept {seconds} s")

    monkeypatch.setattr(time, "sleep", sleep)
    grid = FakeGrid(2, lambda message: honest()(message) if message.metadata.dst_node_id == 1000 else None)
    server = Server(make(), grid)
    server.start()
    assert [item.name for item in server.state.institutions.values()] == ["site-0"]


def test_asks_differ_in_the_receipt_of_one_s_own_last_update_and_nothing_else(
    make: MakeRun,
) -> None:
    def answer(message: Message) -> Message | None:
        lost = (message.metadata.dst_node_id, message.metadata.group_id) == (1001, "2")
        return None if lost else honest()(message)

    grid = FakeGrid(2, answer)
    Server(make(num_rounds=3), grid).start()
    asks = [Ask.from_content(message.content) for message in grid.sent if message.metadata.group_id != "0"]
    said = [read_receipt(Envelope, ask.receipt)[0] if ask.receipt else None for ask in asks]
    assert [(envelope.institution, envelope.round) if envelope else None for envelope in said] == [
        *(None, None),
        *(("site-0", 1), ("site-1", 1)),
        *(("site-0", 2), ("site-1", 1)),  # the second of site-1 was lost
    ]
    for first, second in zip(asks[::2], asks[1::2], strict=True):
        assert replace(first, receipt="") == replace(second, receipt="")


def test_a_round_tells_what_its_institutions_were_expected_to_draw(make: MakeRun) -> None:
    """Steps times probability times declared units of those whose updates counted; never what was drawn."""

    def answer(message: Message) -> Message:
        node, number = message.metadata.dst_node_id, message.metadata.group_id
        if number == "0":
            return accept(message, units=100 * (node - 999))
        return Message(declined(), reply_to=message) if (node, number) == (1001, "1") else honest()(message)

    run = make()
    server = Server(run, FakeGrid(3, answer))
    server.start()
    each = run.local.steps * run.local.sampling_probability
    assert [event["expected_units"] for event in rounds_of(server)] == [
        pytest.approx(each * (100 + 300)),
        pytest.approx(each * 600),
    ]


def test_an_institution_starts_with_nothing_spent() -> None:
    fresh = Institution("st-mary", 100)
    assert (fresh.num_steps, fresh.num_releases, fresh.accepted, fresh.dropped, fresh.receipt) == (0, 0, 0, [], "")
    assert replace(fresh) == fresh


def test_an_ask_that_goes_out_once_more_is_counted_before_it_does(make: MakeRun) -> None:
    """A client that came back within a round may have lost its first attempt, and draws everything anew."""
    server = Server(make(num_rounds=4), FakeGrid(2, honest()))
    job, asked = server.state.job, {1000: Institution("site-0", 100), 1001: Institution("site-1", 100)}
    [first, _] = messages_of(make_ask(job, 1), "train", asked, 60.0)
    record_asks(job, "round_started", "update", 1, asked.values())
    recording_repeats(job, "update", asked)(first)
    assert server.events[1:] == [{"event": "asked_again", "what": "update", "round": 1, "institutions": ["site-0"]}]
    assert [item.num_steps for item in asked.values()] == [6, 3]


class ReconnectingGrid(FakeGrid):
    """One over a network: its first node is away when it is asked in round 1, and again for counts, and comes back."""

    def __init__(self, count: int, answer: Reply) -> None:
        super().__init__(count, self._lost_once)
        self._honestly, self._lost, self._back = answer, set[str](), 0.0

    def _lost_once(self, message: Message) -> Message | None:
        kind = message.metadata.message_type
        if message.metadata.dst_node_id != 1000 or kind in self._lost | {"query.offer"}:
            return self._honestly(message)
        self._lost.add(kind)
        self._back = self._clock.now() + 0.01
        return None

    def activated_at(self) -> dict[int, float]:
        return {1000: self._back} if self._back <= self._clock.now() else {}

    def forget(self, ask_ids: Iterable[str]) -> None:
        for ask_id in ask_ids:
            self._waiting.pop(ask_id, None)


def test_who_comes_back_within_a_round_is_asked_again_and_both_asks_are_counted(make: MakeRun) -> None:
    grid = ReconnectingGrid(2, counts())
    server = Server(validating(make, every=1, num_rounds=4), grid)
    server.state.job = replace(server.state.job, clock=grid._clock)
    server.start()
    assert asked_in(grid).count((1, 1000)) == asked_in(grid, "evaluate").count((1, 1000)) == 2
    told = [(event["what"], event["round"], event["institutions"]) for event in server.events if "what" in event]
    assert told[:4] == [
        ("update", 1, ["site-0", "site-1"]),
        ("update", 1, ["site-0"]),
        ("validation", 1, ["site-0", "site-1"]),
        ("validation", 1, ["site-0"]),
    ]
    first = rounds_of(server)[0]
    assert first["num_steps"] == {"site-0": 6, "site-1": 3}
    assert first["num_releases"] == {"site-0": 2, "site-1": 1}
    assert first["validation"].keys() == {"site-0", "site-1"}


class Leaving(FakeGrid):
    """A node is away in some rounds, from their first look at who is there."""

    def __init__(self, count: int, rounds: set[int], answer: Callable[..., Any]) -> None:
        super().__init__(count, answer)
        self.rounds = rounds

    def get_node_ids(self) -> list[int]:
        ended = sum(
            message.metadata.message_type == "train" and message.metadata.dst_node_id == 1000 for message in self.sent
        )
        return [node for node in super().get_node_ids() if node != 1001 or ended + 1 not in self.rounds]


def test_an_absent_institution_is_neither_asked_nor_charged_until_it_is_back(make: MakeRun) -> None:
    grid = Leaving(2, {2, 3}, honest())
    server = Server(make(num_rounds=4), grid)
    server.start()
    asked = [int(message.metadata.group_id) for message in grid.sent if message.metadata.dst_node_id == 1001]
    assert asked == [0, 1, 4]
    dropped = [(event["round"], event["reason"]) for event in server.events if event["event"] == "dropped"]
    assert dropped == [(2, "not connected"), (3, "not connected")]
    away = server.state.institutions[1001]
    assert (away.num_steps, away.accepted) == (6, 2)
    started = {event["round"]: event["institutions"] for event in server.events if event["event"] == "round_started"}
    assert started[2] == ["site-0"], "the account counts nobody who was not asked"


def test_without_a_quorum_nobody_is_asked_or_charged_and_each_is_told_why(make: MakeRun) -> None:
    """Site-0 is there and site-1 is not: what the one trained would be thrown away."""

    class Gone(FakeGrid):
        def get_node_ids(self) -> list[int]:
            return [node for node in super().get_node_ids() if node != 1001 or not self.sent]

    grid = Gone(2, honest())
    server = Server(make(min_clients=2), grid)
    with pytest.raises(ConfideError):
        server.start()
    assert asked_in(grid) == []
    assert [item.num_steps for item in server.state.institutions.values()] == [0, 0]
    told = {event["institution"]: event["reason"] for event in server.events if event["event"] == "dropped"}
    asked = "not asked, because fewer than federation.min_clients were connected"
    assert told == {"site-0": asked, "site-1": "not connected"}
