"""Flower's hooks over a fake Grid: who is asked, what is refused, when a run ends. No model is loaded."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid

from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError, PolicyError
from confide.common.model.scores import Accuracy
from confide.common.protocol.answers import Acceptance, Update, declined, read_receipt, seal_envelope
from confide.common.protocol.asks import Ask
from confide.common.protocol.signatures import Identity
from confide.common.protocol.versions import other_versions
from confide.common.tensors import State, dump_state
from confide.common.verify.command import verify
from confide.server.aggregation import optimizer
from confide.server.commands.admin_client import _told
from confide.server.home.registry import Member
from confide.server.results.run_directory import RunDirectory
from confide.server.rounds.checkpoint import Saved, load_last, save_round
from confide.server.rounds.participation import draw
from confide.server.rounds.resume import Resumed
from confide.server.rounds.roster import Institution, Members
from confide.server.rounds.run_context import Event, Job
from confide.server.rounds.strategy import ConfideStrategy, to_arrays
from confide.simulations.engines.grid import InProcessGrid, SkippingClock

MakeRun = Callable[..., RunConfig]
INITIAL: State = {"a.lora_B.weight": np.zeros((2, 3), np.float32), "head.bias": np.zeros(2, np.float32)}
Reply = Callable[[Message], Message | None]


class FakeGrid(InProcessGrid):
    """Answers by a function of the message, at once."""

    def __init__(self, count: int, answer: Reply) -> None:
        super().__init__(None, count, SkippingClock(), lambda message, honest: (0.0, answer(message)))  # type: ignore[arg-type]
        self.sent: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        self.sent += messages
        return super().push_messages(messages)


def _accept(message: Message, name: str | None = None, units: int = 100) -> Message:
    name = name or f"site-{message.metadata.dst_node_id - 1000}"
    return Message(Acceptance(name, units, _key(message).public_hex()).content(), reply_to=message)


def _key(message: Message) -> Identity:
    return Identity(message.metadata.dst_node_id.to_bytes(32, "big"))


def _update(message: Message, value: float) -> Message:
    return _answer(message, "update", {name: np.full_like(tensor, value) for name, tensor in INITIAL.items()})


def _answer(message: Message, what: str, state: State) -> Message:
    ask, payload = Ask.from_content(message.content), dump_state(state)
    names = (f"site-{message.metadata.dst_node_id - 1000}", "b" * 64)
    head = f"{message.metadata.dst_node_id:064x}"
    envelope = seal_envelope(ask, what, names, payload, head)
    return Message(Update(envelope, _key(message).sign(envelope.text()), payload).content(), reply_to=message)


def _honest(value: Callable[[int], float] = lambda node: 0.01 * (node - 999)) -> Reply:
    def answer(message: Message) -> Message:
        offered = message.metadata.group_id == "0"
        return _accept(message) if offered else _update(message, value(message.metadata.dst_node_id))

    return answer


class Server:
    """A strategy on a fake grid, with what it told and saved."""

    def __init__(self, run: RunConfig, grid: Grid, *, evaluate: bool = False) -> None:
        self.run, self.grid, self.events, self.saved = run, grid, [], []
        self.evaluated: list[State] = []

        def score(state: State) -> Accuracy:
            self.evaluated.append(state)
            return Accuracy({"public": 0.5})

        def save(number: int, state: Any, accepted: list[dict[str, str]]) -> None:
            self.saved.append((number, accepted))

        job = Job(run, "ab" * 16, INITIAL, score if evaluate else None, self.emit, save, SkippingClock(), 0)
        self.strategy = ConfideStrategy(job)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def start(self) -> Any:
        federation = self.run.federation
        return self.strategy.start(
            self.grid, to_arrays(INITIAL), num_rounds=federation.num_rounds, timeout=federation.deadline_seconds
        )


@pytest.fixture
def make(make_run: MakeRun) -> Callable[..., RunConfig]:
    def factory(**federation: Any) -> RunConfig:
        settings = {"num_rounds": 2, "server_optimizer": "none", "average_decay": 0.0, **federation}
        return make_run(federation=settings, model={"sha256": "b" * 64}, local={"steps": 3})

    return factory


def test_a_round_asks_everyone_and_averages(make: MakeRun) -> None:
    grid = FakeGrid(3, _honest())
    server = Server(make(), grid)
    result = server.start()
    np.testing.assert_allclose(result.arrays["head.bias"].numpy(), [0.04, 0.04], rtol=1e-6)
    assert [message.metadata.message_type for message in grid.sent] == ["query.offer"] * 3 + ["train"] * 6
    assert [number for number, _ in server.saved] == [1, 2]
    assert all(item.num_steps == 6 and item.accepted == 2 for item in server.strategy.institutions.values())
    asks = [Ask.from_content(message.content) for message in grid.sent]
    assert {ask.lineage for ask in asks} == {"ab" * 16}
    assert [ask.round for ask in asks] == [0] * 3 + [1] * 3 + [2] * 3
    assert len({ask.input_sha256 for ask in asks}) == 3
    assert all(ask.adapter == b"" for ask in asks[:3]), "an offer carries no adapter"
    assert all("simulation" not in ask.run_json for ask in asks)
    assert {message.metadata.ttl for message in grid.sent[3:]} == {server.run.federation.deadline_seconds + 600}


def test_an_offer_lasts_as_long_as_it_is_waited_for(make: MakeRun) -> None:
    """Flower refuses a reply whose ask has expired: with 600 s, who prepares for 15 minutes could never join."""
    grid = FakeGrid(2, _honest())
    Server(make(deadline_seconds=7200.0), grid).start()
    assert {message.metadata.ttl for message in grid.sent[:2]} == {7800.0}


def test_an_adapter_that_institutions_would_refuse_ends_the_run_before_it_is_sent(make: MakeRun) -> None:
    """Everybody would decline without a word, round after round, and be charged for the rounds until then."""
    for num_rounds in (20, 15):  # in the second it would be given out, and no client would keep it
        grid = FakeGrid(2, _honest(lambda node: 25.0))
        server = Server(make(num_rounds=num_rounds), grid)
        with pytest.raises(ConfideError) as raised:
            server.start()
        said = str(raised.value)
        assert said.startswith("the adapter has a norm of 1060.66, and institutions take none above 1000")
        assert "lower local.learning_rate" in said
        assert [number for number, _ in server.saved] == list(range(1, 16))
        assert _asked(grid)[-1][0] == 15
        assert not server.strategy.finished
    server = Server(make(num_rounds=14), FakeGrid(2, _honest(lambda node: 25.0)))
    server.start()
    assert server.strategy.finished


def test_the_remedy_for_too_large_an_adapter_is_the_learning_rate_that_made_it(make: MakeRun) -> None:
    server = Server(make(num_rounds=3, server_optimizer="adamw", learning_rate=1e3), FakeGrid(2, _honest()))
    with pytest.raises(ConfideError, match=r"lower federation\.learning_rate"):
        server.start()


def _asked(grid: FakeGrid, kind: str = "train") -> list[tuple[int, int]]:
    return [
        (int(message.metadata.group_id), message.metadata.dst_node_id)
        for message in grid.sent
        if message.metadata.message_type == kind
    ]


def test_only_who_is_drawn_is_asked_charged_or_dropped(make: MakeRun) -> None:
    """Nobody answers in round 2: only those it asked are dropped in it."""

    def answer(message: Message) -> Message | None:
        return None if message.metadata.group_id == "2" else _honest()(message)

    grid = FakeGrid(10, answer)
    server = Server(make(num_rounds=4, participation=0.3), grid)
    server.start()
    asked, names = _asked(grid), {node: f"site-{node - 1000}" for node in range(1000, 1010)}
    by_round = {number: {names[node] for of, node in asked if of == number} for number in (1, 2, 3, 4)}
    assert by_round == {
        number: draw(names.values(), server.run.federation, server.run.study.seed, number) for number in by_round
    }
    assert [len(drawn) for drawn in by_round.values()] == [3] * 4
    for node, item in server.strategy.institutions.items():
        times = [number for number, of in asked if of == node]
        assert (item.num_steps, item.accepted) == (3 * len(times), len(set(times) - {2}))
        assert item.dropped == (["round 2: no answer before the deadline"] if 2 in times else [])
    told = {event["round"]: set(event["institutions"]) for event in server.events if event["event"] == "round_started"}
    assert told == by_round
    assert {event["institution"] for event in server.events if event["event"] == "dropped"} == by_round[2]


def test_the_mean_and_the_quorum_are_of_those_who_were_asked(make: MakeRun) -> None:
    def answer(message: Message) -> Message | None:
        return _accept(message) if message.metadata.group_id == "0" else _update(message, 0.04)

    server = Server(make(num_rounds=1, participation=0.3, min_clients=3), FakeGrid(10, answer))
    np.testing.assert_allclose(server.start().arrays["head.bias"].numpy(), [0.04, 0.04], rtol=1e-6)
    assert "no_quorum" not in {event["event"] for event in server.events}


def test_a_resumed_run_asks_and_counts_as_if_it_had_not_stopped(make: MakeRun) -> None:
    run = make(num_rounds=6, participation=0.3)
    whole, first, second = FakeGrid(10, _honest()), FakeGrid(10, _honest()), FakeGrid(10, _honest())
    through = Server(run, whole)
    through.start()
    stopped = Server(run, first)
    stopped.strategy.job = replace(stopped.strategy.job, is_stopped=lambda: stopped.strategy.round == 3)
    stopped.start()
    before = {item.name: item for item in stopped.strategy.everybody()}
    saved = Saved(3, stopped.strategy.state, [])
    resumed, lines = Server(run, second), _rounds(stopped)
    resumed.strategy = ConfideStrategy(replace(resumed.strategy.job, resumed=Resumed(saved, {}, before, lines)))
    resumed.start()
    assert _asked(first) + _asked(second) == _asked(whole)
    assert [item.num_steps for item in resumed.strategy.institutions.values()] == [
        item.num_steps for item in through.strategy.institutions.values()
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
    server = Server(run, FakeGrid(2, _honest()))
    server.strategy = ConfideStrategy(replace(server.strategy.job, resumed=Resumed(saved, {}, before, lines)))
    server.start()
    assert _asked(server.grid) == [(number, node) for number in (2, 3, 4) for node in (1000, 1001)]  # type: ignore[arg-type]
    assert [event["num_steps"]["site-0"] for event in _rounds(server)] == [9, 12, 12], (
        "2: its retry is spent; 4: a plan"
    )


def test_declared_sizes_weigh(make: MakeRun) -> None:
    def answer(message: Message) -> Message:
        if message.metadata.group_id == "0":
            return _accept(message, units=300 if message.metadata.dst_node_id == 1000 else 100)
        return _update(message, 0.04 if message.metadata.dst_node_id == 1000 else 0.0)

    server = Server(make(num_rounds=1, weights="declared"), FakeGrid(2, answer))
    np.testing.assert_allclose(server.start().arrays["head.bias"].numpy(), [0.03, 0.03], rtol=1e-6)


@pytest.mark.parametrize("units", [1, 10**9])
def test_who_declares_a_size_far_from_the_run_s_is_left_out_with_the_reason_before_anything_is_charged(
    make: MakeRun, units: int
) -> None:
    """At one unit the gate would let a norm of 84,500 through, and at 10^9 the weight would be all there is."""

    def answer(message: Message) -> Message:
        if message.metadata.group_id == "0":
            return _accept(message, units=units if message.metadata.dst_node_id == 1000 else 100)
        return _update(message, 0.04)

    server = Server(make(num_rounds=1, weights="declared"), FakeGrid(3, answer))
    keys = [Identity(node.to_bytes(32, "big")).public_hex() for node in (1000, 1001, 1002)]
    members = {1000 + index: Member(f"site-{index}", "pem", key, "today") for index, key in enumerate(keys)}
    server.strategy = ConfideStrategy(replace(server.strategy.job, members=members))
    server.start()
    assert [item.name for item in server.strategy.everybody()] == ["site-1", "site-2"]
    [reason] = server.events[0]["others"].values()
    assert reason.startswith(f"declared_units = {units} must be within 20 times local.nominal_units = 2000")
    assert f"; site-0: declared_units = {units} must be" in _told(server.events[0], "a-run")


def test_only_members_are_asked_and_who_is_named_but_not_approved_is_told(make: MakeRun) -> None:
    """Who is not of the study must not see its offer, and would open a ledger for it."""
    run = make(num_rounds=1)
    run = run.model_copy(update={"study": run.study.model_copy(update={"institutions": ("site-0", "site-2", "jude")})})
    server = Server(run, FakeGrid(3, _honest()))
    server.strategy = ConfideStrategy(replace(server.strategy.job, members=_members(1000, 1002), num_nodes=2))
    server.start()
    assert {message.metadata.dst_node_id for message in server.grid.sent} == {1000, 1002}
    assert [item.name for item in server.strategy.everybody()] == ["site-0", "site-2"]
    assert server.events[0]["others"] == {"jude": "named in study.institutions, but not approved at this server"}


def test_a_name_that_two_nodes_claim_is_nobody_s(make: MakeRun) -> None:
    def answer(message: Message) -> Message:
        if message.metadata.group_id == "0":
            return _accept(message, name="twin" if message.metadata.dst_node_id < 1002 else None)
        return _honest()(message)

    server = Server(make(), FakeGrid(4, answer))
    server.start()
    assert [item.name for item in server.strategy.institutions.values()] == ["site-2", "site-3"]


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"accepted": ConfigRecord()}),
        RecordDict({"accepted": ConfigRecord({"institution": "x", "declared_units": 0})}),
        RecordDict({"accepted": ConfigRecord({"institution": "x", "declared_units": -5})}),
        RecordDict({"accepted": ConfigRecord({"institution": "x", "declared_units": 1.5})}),
        RecordDict({"accepted": ConfigRecord({"institution": 3, "declared_units": 5})}),
        RecordDict({"accepted": ConfigRecord({"institution": "x", "declared_units": 5, "more": 1})}),
        RecordDict({"declined": ConfigRecord()}),
    ],
)
def test_what_is_no_acceptance_is_a_no(make: MakeRun, content: RecordDict) -> None:
    def answer(message: Message) -> Message:
        return Message(content, reply_to=message) if message.metadata.dst_node_id == 1001 else _honest()(message)

    server = Server(make(min_clients=2), FakeGrid(2, answer))
    with pytest.raises(ConfideError, match=r"1 of 2 institutions accepted the run, federation.min_clients = 2"):
        server.start()
    assert server.events[-1].items() >= {"event": "offered", "asked": 2, "accepted": 1}.items()


def test_an_institution_of_another_version_is_named_at_the_offer_and_in_a_round(make: MakeRun) -> None:
    """It was upgraded alone, before the run or in the middle of it; the others go on."""
    other = other_versions()
    other["version"]["confide"] = "9.9.9"

    def answer(message: Message) -> Message:
        late = message.metadata.dst_node_id == 1002 and message.metadata.group_id == "2"
        if late or message.metadata.dst_node_id == 1001:
            return Message(other, reply_to=message)
        return _honest()(message)

    server = Server(make(), FakeGrid(3, answer))
    server.start()
    offered = next(event for event in server.events if event["event"] == "offered")
    assert offered["others"]["node 1001"].startswith("the institution runs confide '9.9.9'")
    [dropped] = [event for event in server.events if event["event"] == "dropped"]
    assert (dropped["institution"], dropped["round"]) == ("site-2", 2)
    assert dropped["reason"].startswith("the institution runs confide '9.9.9'")


def test_nobody_there(make: MakeRun) -> None:
    with pytest.raises(ConfideError, match="0 of 0 institutions"):
        Server(make(), FakeGrid(0, _honest())).start()


def test_the_text_of_an_error_is_never_read(make: MakeRun) -> None:
    """Flower sends exception texts verbatim, and they can hold a private text."""

    def answer(message: Message) -> Message:
        if (message.metadata.dst_node_id, message.metadata.group_id) == (1001, "1"):
            return Message(Error(code=2, reason="ValueError: Mrs Canary"), reply_to=message)
        return _honest()(message)

    server = Server(make(), FakeGrid(2, answer))
    server.start()
    assert server.strategy.institutions[1001].accepted == 1
    assert "error 2" in str(server.events)
    assert "Canary" not in str(server.events) + str(server.strategy.institutions)


def test_declined_is_a_reason_and_no_quorum_changes_nothing(make: MakeRun) -> None:
    def answer(message: Message) -> Message:
        if (message.metadata.dst_node_id, message.metadata.group_id) == (1001, "1"):
            return Message(RecordDict({"declined": ConfigRecord()}), reply_to=message)
        return _honest()(message)

    server = Server(make(min_clients=2), FakeGrid(2, answer))
    server.start()
    assert {"event": "no_quorum", "round": 1, "accepted": 1} in server.events
    assert [number for number, _ in server.saved] == [2]
    assert server.strategy.state.round == 1
    rounds = [event for event in server.events if event["event"] == "round"]
    assert [event["dropped"] for event in rounds] == [["site-1: declined"], []]
    assert [event["num_steps"] for event in rounds] == [{"site-0": 3, "site-1": 3}, {"site-0": 6, "site-1": 6}]


@pytest.mark.parametrize("num_rounds", [1, 2, 3, 9])
def test_a_run_without_any_good_round_fails(make: MakeRun, num_rounds: int) -> None:
    """Never a "completed" run whose adapter nobody trained."""

    def answer(message: Message) -> Message | None:
        return _accept(message) if message.metadata.group_id == "0" else None

    server = Server(make(num_rounds=num_rounds), FakeGrid(2, answer))
    with pytest.raises(ConfideError, match=r"federation.min_clients"):
        server.start()
    assert not server.saved
    assert all(item.num_steps == 3 * min(num_rounds, 3) for item in server.strategy.institutions.values())


def test_a_quorum_in_between_starts_the_count_anew(make: MakeRun) -> None:
    def answer(message: Message) -> Message | None:
        lost = message.metadata.dst_node_id == 1001 and message.metadata.group_id in ("1", "2", "4", "5")
        return None if lost else _honest()(message)

    server = Server(make(num_rounds=6, min_clients=2), FakeGrid(2, answer))
    server.start()
    assert server.strategy.state.round == 2


def test_the_released_average_is_evaluated_every_so_often_and_at_the_end(make: MakeRun) -> None:
    run = make(num_rounds=5)
    run = run.model_copy(update={"evaluation": run.evaluation.model_copy(update={"every": 2})})
    server = Server(run, FakeGrid(2, _honest()), evaluate=True)
    server.start()
    scored = [event["round"] for event in server.events if event["event"] == "round" and "accuracy" in event]
    assert scored == [2, 4, 5]
    np.testing.assert_array_equal(server.evaluated[-1]["head.bias"], server.strategy.state.average["head.bias"])


def test_an_update_that_is_larger_than_clip_and_noise_allow_is_dropped(make: MakeRun) -> None:
    server = Server(make(), FakeGrid(2, _honest(lambda node: 1e5 if node == 1001 else 0.01)))
    server.start()
    assert [item.accepted for item in server.strategy.institutions.values()] == [2, 0]
    assert all("norm" in reason for reason in server.strategy.institutions[1001].dropped)


def test_one_reply_for_each_ask(make: MakeRun) -> None:
    """The same reply twice, and a reply that nobody asked for, count once and never."""

    class Doubling(FakeGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            replies = list(super().pull_messages(message_ids))
            return [*replies, *replies]

    server = Server(make(), Doubling(2, _honest()))
    server.start()
    assert [item.accepted for item in server.strategy.institutions.values()] == [2, 2]


def test_a_straggler_costs_no_time(make: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError(f"slept {seconds} s")

    monkeypatch.setattr(time, "sleep", sleep)
    grid = FakeGrid(2, lambda message: _honest()(message) if message.metadata.dst_node_id == 1000 else None)
    server = Server(make(), grid)
    server.start()
    assert [item.name for item in server.strategy.institutions.values()] == ["site-0"]


def test_every_ask_carries_the_receipt_of_the_institution_s_own_last_update_and_differs_in_nothing_else(
    make: MakeRun,
) -> None:
    def answer(message: Message) -> Message | None:
        lost = (message.metadata.dst_node_id, message.metadata.group_id) == (1001, "2")
        return None if lost else _honest()(message)

    grid = FakeGrid(2, answer)
    Server(make(num_rounds=3), grid).start()
    asks = [Ask.from_content(message.content) for message in grid.sent if message.metadata.group_id != "0"]
    said = [read_receipt(ask.receipt)[0] if ask.receipt else None for ask in asks]
    assert [(envelope.institution, envelope.round) if envelope else None for envelope in said] == [
        *(None, None),
        *(("site-0", 1), ("site-1", 1)),
        *(("site-0", 2), ("site-1", 1)),  # the second of site-1 was lost
    ]
    for first, second in zip(asks[::2], asks[1::2], strict=True):
        assert replace(first, receipt="") == replace(second, receipt="")


# Validation counts


def _counts(change: Callable[[Message, State], Message | None] | None = None) -> Reply:
    """Honest updates, and counts of 7 right and 3 wrong: of site-1 as ``change`` makes them."""

    def answer(message: Message) -> Message | None:
        if message.metadata.message_type != "evaluate":
            return _honest()(message)
        cells: State = {"cells": np.array([7.25, 3.5], np.float32)}
        if change is not None and message.metadata.dst_node_id == 1001:
            return change(message, cells)
        return _answer(message, "validation", cells)

    return answer


def _validating(make: MakeRun, every: int = 2, **federation: Any) -> RunConfig:
    run = make(**federation)
    return run.model_copy(update={"evaluation": run.evaluation.model_copy(update={"validation_every": every})})


def _rounds(server: Server) -> list[Event]:
    return [event for event in server.events if event["event"] == "round"]


def test_nobody_is_asked_for_counts_unless_the_run_says_so(make: MakeRun) -> None:
    grid = FakeGrid(2, _counts())
    server = Server(make(), grid)
    server.start()
    assert "evaluate" not in {message.metadata.message_type for message in grid.sent}
    assert list(server.strategy.configure_evaluate(1, to_arrays(INITIAL), ConfigRecord(), server.grid)) == []
    assert server.strategy.aggregate_evaluate(1, []) is None
    assert all("validation" not in event for event in _rounds(server))


def test_a_round_tells_what_its_institutions_were_expected_to_draw(make: MakeRun) -> None:
    """Steps times probability times declared units of those whose updates counted; never what was drawn."""

    def answer(message: Message) -> Message:
        node, number = message.metadata.dst_node_id, message.metadata.group_id
        if number == "0":
            return _accept(message, units=100 * (node - 999))
        return Message(declined(), reply_to=message) if (node, number) == (1001, "1") else _honest()(message)

    run = make()
    server = Server(run, FakeGrid(3, answer))
    server.start()
    each = run.local.steps * run.local.sampling_probability
    assert [event["expected_units"] for event in _rounds(server)] == [
        pytest.approx(each * (100 + 300)),
        pytest.approx(each * 600),
    ]


def test_counts_are_asked_of_those_who_train_in_the_round(make: MakeRun) -> None:
    grid = FakeGrid(6, _counts())
    server = Server(_validating(make, every=2, num_rounds=4, participation=0.5), grid)
    server.start()
    asked = _asked(grid, "evaluate")
    assert sorted(asked) == sorted(pair for pair in _asked(grid) if pair[0] in (2, 4))
    assert len(asked) == 6
    for node, item in server.strategy.institutions.items():
        assert item.num_releases == sum(of == node for _, of in asked)


def test_a_run_without_privacy_asks_for_no_counts(make: MakeRun) -> None:
    run = _validating(make, every=1)
    open_run = run.model_copy(update={"privacy": run.privacy.model_copy(update={"unit": "none"})})
    grid = FakeGrid(2, _counts())
    Server(open_run, grid).start()
    assert "evaluate" not in {message.metadata.message_type for message in grid.sent}


def test_the_counts_of_a_round_are_those_of_its_released_average_and_stand_in_its_event(make: MakeRun) -> None:
    grid = FakeGrid(2, _counts())
    server = Server(_validating(make, num_rounds=5, average_decay=0.5), grid)
    server.start()
    asked = [message for message in grid.sent if message.metadata.message_type == "evaluate"]
    assert [message.metadata.group_id for message in asked] == ["2", "2", "4", "4"]
    averages = [Ask.from_content(message.content).adapter for message in asked]
    trained = [message for message in grid.sent if message.metadata.message_type == "train"]
    assert averages[0] == averages[1] != averages[2]
    assert not {*averages} & {Ask.from_content(message.content).adapter for message in trained}
    both = {name: {"right": 7.25, "wrong": 3.5} for name in ("site-0", "site-1")}
    assert [event.get("validation") for event in _rounds(server)] == [None, both, None, both, None]
    assert [item.num_releases for item in server.strategy.institutions.values()] == [2, 2]


BAD_COUNTS: dict[str, Callable[[Message, State], Message | None]] = {
    "declined": lambda message, cells: Message(declined(), reply_to=message),
    "silent": lambda message, cells: None,
    "error": lambda message, cells: Message(Error(code=2, reason="Mrs Canary"), reply_to=message),
    "garbage": lambda message, cells: Message(RecordDict({"update": ConfigRecord()}), reply_to=message),
    "not finite": lambda message, cells: _answer(message, "validation", {"cells": cells["cells"] * np.nan}),
    "huge": lambda message, cells: _answer(message, "validation", {"cells": cells["cells"] * 1e20}),
    "one cell": lambda message, cells: _answer(message, "validation", {"cells": cells["cells"][:1]}),
    "more": lambda message, cells: _answer(message, "validation", {**cells, "loss": cells["cells"]}),
    "an update instead": lambda message, cells: _answer(message, "update", cells),
}


@pytest.mark.parametrize("name", BAD_COUNTS)
def test_who_gives_no_counts_is_not_dropped_and_nothing_is_lost(make: MakeRun, name: str) -> None:
    server = Server(_validating(make, every=1), FakeGrid(2, _counts(BAD_COUNTS[name])))
    result = server.start()
    np.testing.assert_allclose(result.arrays["head.bias"].numpy(), [0.03, 0.03], rtol=1e-6)
    assert [event["validation"].keys() for event in _rounds(server)] == [{"site-0"}] * 2
    assert [(event["accepted"], event["dropped"]) for event in _rounds(server)] == [(2, [])] * 2
    assert [item.accepted for item in server.strategy.institutions.values()] == [2, 2]
    assert "Canary" not in str(server.events)


def test_a_round_without_quorum_asks_for_no_counts(make: MakeRun) -> None:
    def answer(message: Message) -> Message | None:
        lost = (message.metadata.dst_node_id, message.metadata.group_id) == (1001, "1")
        return None if lost else _counts()(message)

    grid = FakeGrid(2, answer)
    server = Server(_validating(make, every=1, min_clients=2), grid)
    server.start()
    assert ["validation" in event for event in _rounds(server)] == [False, True]
    assert [item.num_releases for item in server.strategy.institutions.values()] == [1, 1]


def test_counts_of_one_round_are_not_those_of_another(make: MakeRun) -> None:
    kept: list[RecordDict] = []

    def late(message: Message, cells: State) -> Message | None:
        kept.append(_answer(message, "validation", cells).content)
        return Message(kept[0], reply_to=message)

    server = Server(_validating(make, every=1), FakeGrid(2, _counts(late)))
    server.start()
    assert ["site-1" in event["validation"] for event in _rounds(server)] == [True, False]


def test_an_institution_starts_with_nothing_spent() -> None:
    fresh = Institution("st-mary", 100)
    assert (fresh.num_steps, fresh.num_releases, fresh.accepted, fresh.dropped, fresh.receipt) == (0, 0, 0, [], "")
    assert replace(fresh) == fresh


# The account of a run that crashes and goes on with others


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
        save_round(folder / "rounds", number, state, accepted, server.strategy.job.lineage)

    saved, damaged = load_last(folder / "rounds", "ab" * 16)
    resumed = Resumed(saved, damaged, directory.institutions(run), directory.rounds())
    job = replace(server.strategy.job, emit=emit, save=save, resumed=resumed, members=members)
    server.strategy = ConfideStrategy(job)
    with contextlib.suppress(_Crash):
        server.start()
    assert server.strategy.finished == (crash is None)
    return server


def _until_it_crashes(run: RunConfig, folder: Path, away: set[int], crash: tuple[str, int] | None) -> list[Message]:
    """One life of a server with some of six institutions; what it sent."""

    def answer(message: Message) -> Message | None:
        if message.metadata.dst_node_id in away:
            return Message(declined(), reply_to=message) if message.metadata.group_id == "0" else None
        return _counts()(message)

    grid = FakeGrid(6, answer)
    server = _live(run, folder, grid, crash)
    if crash is None:
        RunDirectory.open(folder, run).write_privacy("completed", run, server.strategy.everybody(), simulated=False)
    return grid.sent


def test_privacy_json_counts_every_ask_of_a_run_that_crashes_and_goes_on_with_others(
    make: MakeRun, tmp_path: Path
) -> None:
    """Participation 0.5, three crashes, each time somebody else is away: nothing that was asked is forgotten."""
    run, folder = _validating(make, every=2, num_rounds=12, participation=0.5), tmp_path / "run"
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


def _silent(*pairs: tuple[int, str]) -> Reply:
    """Honest, but some nodes do not answer in some rounds."""

    def answer(message: Message) -> Message | None:
        return None if (message.metadata.dst_node_id, message.metadata.group_id) in pairs else _counts()(message)

    return answer


def _members(*nodes: int) -> Members:
    return {
        node: Member(f"site-{node - 1000}", "", Identity(node.to_bytes(32, "big")).public_hex(), "") for node in nodes
    }


@pytest.mark.parametrize("killed", [("validation_started", 4), ("round", 4), None])
def test_a_run_killed_after_its_last_checkpoint_ends_with_what_it_measured_and_needs_nobody_s_consent(
    make: MakeRun, tmp_path: Path, killed: tuple[str, int] | None
) -> None:
    """In the last counts, or anywhere in the export; now one institution is there, one is away, one was revoked."""
    run = _validating(make, every=2, num_rounds=4, min_clients=3)
    first = _live(run, tmp_path, FakeGrid(3, _counts()), killed)
    away = FakeGrid(3, lambda message: _counts()(message) if message.metadata.dst_node_id == 1001 else None)
    again = _live(run, tmp_path, away, None, _members(1000, 1001))
    assert {message.metadata.message_type for message in away.sent} == ({"evaluate"} if killed else set())
    np.testing.assert_array_equal(again.evaluated[-1]["head.bias"], first.strategy.state.average["head.bias"])
    assert again.strategy.accuracy is not None
    assert again.strategy.bytes_per_client_round == len(dump_state(INITIAL))
    assert {node: item.accepted for node, item in again.strategy.institutions.items()} == {1000: 4, 1001: 4}
    assert [(item.name, item.accepted) for item in again.strategy.gone] == [("site-2", 4)]
    assert [line["round"] for line in RunDirectory.open(tmp_path, run).rounds()] == [1, 2, 3, 4]


def test_after_a_restart_those_who_took_part_are_waited_for_though_nothing_is_offered(
    make: MakeRun, tmp_path: Path
) -> None:
    """Else their adapter, and the last counts, would go to nodes that Flower does not take for online yet."""

    class _Returning(FakeGrid):
        def get_node_ids(self) -> Iterable[int]:
            self.looks = getattr(self, "looks", 0) + 1
            return super().get_node_ids() if self.looks > 5 else []

        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            assert self.looks > 5, "nobody is there yet"
            return super().push_messages(messages)

    run = _validating(make, every=2, num_rounds=4)
    _live(run, tmp_path, FakeGrid(3, _counts()), ("validation_started", 4))
    again = _Returning(3, _counts())
    _live(run, tmp_path, again, None, _members(1000, 1001, 1002))
    assert {message.metadata.dst_node_id for message in again.sent} == {1000, 1001, 1002}
    assert again.looks > 5


def test_too_few_approved_are_told_before_anybody_is_asked(make: MakeRun) -> None:
    """They would set budget aside for a run that cannot begin, and the operator would wait for the deadline."""
    run = make(num_rounds=1, min_clients=2)
    run = run.model_copy(update={"study": run.study.model_copy(update={"institutions": ("site-0", "jude")})})
    server = Server(run, FakeGrid(3, _honest()))
    server.strategy = ConfideStrategy(replace(server.strategy.job, members=_members(1000), num_nodes=1))
    with pytest.raises(PolicyError, match=r"^1 institutions .*min_clients = 2; not approved: jude$"):
        server.start()
    assert server.grid.sent == []


def test_what_a_crash_took_of_a_round_after_its_checkpoint_is_made_up(make: MakeRun, tmp_path: Path) -> None:
    """Its counts, from those who trained in it and no other, and its line; nobody trains it again."""
    run = _validating(make, every=2, num_rounds=4, participation=0.5)
    first, second = FakeGrid(6, _counts()), FakeGrid(6, _counts())
    whole = _live(run, tmp_path / "whole", first)
    trained = {node for number, node in _asked(first) if number == 2}
    _live(run, tmp_path / "killed", FakeGrid(6, _counts()), ("validation_started", 2))
    killed = _live(run, tmp_path / "killed", second)
    assert {number for number, _ in _asked(second)} == {3, 4}
    assert {node for number, node in _asked(second, "evaluate") if number == 2} == trained
    lines = [RunDirectory.open(tmp_path / name, run).rounds() for name in ("whole", "killed")]
    for name in ("round", "accepted", "dropped", "validation", "expected_units"):
        assert [line.get(name) for line in lines[0]] == [line.get(name) for line in lines[1]], name
    assert [item.accepted for item in killed.strategy.everybody()] == [
        item.accepted for item in whole.strategy.everybody()
    ]


def test_rounds_and_answers_count_once_however_often_a_round_is_asked(make: MakeRun, tmp_path: Path) -> None:
    """Killed with one answer in, then before a round's line, then with the last checkpoint damaged."""
    run = make(num_rounds=4)
    _live(run, tmp_path, FakeGrid(3, _silent((1001, "1"), (1002, "2"))), ("dropped", 2))
    _live(run, tmp_path, FakeGrid(3, _silent((1000, "2"))), ("round", 2))
    _live(run, tmp_path, FakeGrid(3, _counts()), ("round_started", 4))
    (tmp_path / "rounds" / "0003" / "adapter.safetensors").write_bytes(b"damaged")
    server = _live(run, tmp_path, FakeGrid(3, _counts()))
    assert [line["round"] for line in RunDirectory.open(tmp_path, run).rounds()] == [1, 2, 3, 4]
    known = {item.name: (item.accepted, item.dropped) for item in server.strategy.everybody()}
    late = "no answer before the deadline"
    assert known == {"site-0": (3, [f"round 2: {late}"]), "site-1": (3, [f"round 1: {late}"]), "site-2": (4, [])}


def test_of_a_round_whose_checkpoint_is_damaged_only_what_was_accepted_is_taken_again(
    make: MakeRun, tmp_path: Path
) -> None:
    """Site-1 has another update now; site-2's had not come in time."""
    run = make(num_rounds=4)
    _live(run, tmp_path, FakeGrid(3, _silent((1002, "3"))), ("round_started", 4))
    (tmp_path / "rounds" / "0003" / "adapter.safetensors").write_bytes(b"damaged")

    def answer(message: Message) -> Message | None:
        another = (message.metadata.dst_node_id, message.metadata.group_id) == (1001, "3")
        return _update(message, 0.015) if another else _counts()(message)

    _live(run, tmp_path, FakeGrid(3, answer))
    events = RunDirectory.open(tmp_path, run).events()
    refused = "another update than the one that was accepted before the checkpoint was damaged"
    dropped = [(event["round"], event["institution"]) for event in events if event.get("reason") == refused]
    assert dropped == [(3, "site-1"), (3, "site-2")]


def test_an_answer_to_a_round_that_went_on_without_it_does_not_count(make: MakeRun, tmp_path: Path) -> None:
    """The server was killed before the round's checkpoint, and who had answered is away since."""
    run = make(num_rounds=4)
    _live(run, tmp_path, FakeGrid(3, _silent((1001, "2"))), ("dropped", 2))
    for crash in (("round_started", 3), None):
        server = _live(run, tmp_path, FakeGrid(2, _counts()), crash)
        assert [(item.name, item.accepted) for item in server.strategy.gone] == [("site-2", 1)]


def test_a_round_without_quorum_is_not_asked_again_once_another_was(make: MakeRun, tmp_path: Path) -> None:
    """With a quorum now it would change the input of the round that was open, which institutions have answered."""
    run = make(num_rounds=6, min_clients=3)
    first, second = FakeGrid(3, _silent((1001, "3"), (1002, "4"))), FakeGrid(3, _counts())
    _live(run, tmp_path, first, ("accepted", 5))
    _live(run, tmp_path, second)
    assert {number for number, _ in _asked(second)} == {5, 6}
    fifth = [message for grid in (first, second) for message in grid.sent if message.metadata.group_id == "5"]
    assert len({Ask.from_content(message.content).input_sha256 for message in fifth}) == 1


def test_a_run_that_learnt_nothing_asks_its_last_round_again(make: MakeRun, tmp_path: Path) -> None:
    run, grid = make(num_rounds=2), FakeGrid(1, _counts())
    with pytest.raises(ConfideError, match="nothing was learnt"):
        _live(run, tmp_path, FakeGrid(1, _silent((1000, "1"), (1000, "2"))))
    _live(run, tmp_path, grid)
    assert {number for number, _ in _asked(grid)} == {2}


@pytest.mark.parametrize("count", [0, 2], ids=["nobody is there", "one does not answer"])
def test_a_run_can_be_stopped_while_it_is_offered(make: MakeRun, count: int) -> None:
    """The queue must not wait until the deadline."""
    grid = FakeGrid(count, _silent((1001, "0")))
    server, clock = Server(make(), grid), grid._clock
    stopped_at = clock.now() + 1.0
    job = replace(server.strategy.job, clock=clock, is_stopped=lambda: clock.now() > stopped_at)
    server.strategy.job = job
    server.start()
    assert (server.strategy.finished, server.events) == (False, [])
    assert clock.now() < stopped_at + 1.0 < stopped_at + job.run.federation.deadline_seconds


def test_an_ask_that_goes_out_once_more_is_counted_before_it_does(make: MakeRun) -> None:
    """A client that came back within a round may have lost its first attempt, and draws everything anew."""
    server = Server(make(num_rounds=4), FakeGrid(2, _honest()))
    strategy, told = server.strategy, []
    strategy.job = replace(strategy.job, emit=told.append)
    strategy.institutions = {1000: Institution("site-0", 100), 1001: Institution("site-1", 100)}
    [first, _] = list(strategy.configure_train(1, to_arrays(INITIAL), ConfigRecord(), server.grid))
    strategy._note("round_started", "update", 1, list(strategy.institutions.values()))
    strategy._asked_again(first)
    assert told[1:] == [{"event": "asked_again", "what": "update", "round": 1, "institutions": ["site-0"]}]
    assert [item.num_steps for item in strategy.everybody()] == [6, 3]


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
    grid = ReconnectingGrid(2, _counts())
    server = Server(_validating(make, every=1, num_rounds=4), grid)
    server.strategy.job = replace(server.strategy.job, clock=grid._clock)
    server.start()
    assert _asked(grid).count((1, 1000)) == _asked(grid, "evaluate").count((1, 1000)) == 2
    told = [(event["what"], event["round"], event["institutions"]) for event in server.events if "what" in event]
    assert told[:4] == [
        ("update", 1, ["site-0", "site-1"]),
        ("update", 1, ["site-0"]),
        ("validation", 1, ["site-0", "site-1"]),
        ("validation", 1, ["site-0"]),
    ]
    first = _rounds(server)[0]
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


def test_who_is_away_is_neither_asked_nor_charged_and_is_asked_again_once_it_is_back(make: MakeRun) -> None:
    grid = Leaving(2, {2, 3}, _honest())
    server = Server(make(num_rounds=4), grid)
    server.start()
    asked = [int(message.metadata.group_id) for message in grid.sent if message.metadata.dst_node_id == 1001]
    assert asked == [0, 1, 4]
    dropped = [(event["round"], event["reason"]) for event in server.events if event["event"] == "dropped"]
    assert dropped == [(2, "not connected"), (3, "not connected")]
    away = server.strategy.institutions[1001]
    assert (away.num_steps, away.accepted) == (6, 2)
    started = {event["round"]: event["institutions"] for event in server.events if event["event"] == "round_started"}
    assert started[2] == ["site-0"], "the account counts nobody who was not asked"


def test_an_offer_names_who_was_not_connected_and_who_did_not_answer(make: MakeRun) -> None:
    """An operator who reads "1 of 1 accepted" would not know of the other two."""
    grid = FakeGrid(2, lambda message: None if message.metadata.dst_node_id == 1001 else _honest()(message))
    server = Server(make(min_clients=3), grid)
    server.strategy = ConfideStrategy(replace(server.strategy.job, members=_members(1000, 1001, 1002), num_nodes=3))
    with pytest.raises(PolicyError) as error:
        server.start()
    assert str(error.value) == (
        "1 of 3 institutions accepted the run, federation.min_clients = 3; site-1: no answer before the deadline; "
        "site-2: not connected"
    )
    [offered] = [event for event in server.events if event["event"] == "offered"]
    assert (offered["asked"], offered["accepted"]) == (2, 1)
    assert offered["versions"].keys() == {"protocol", "confide", "flwr"}


def test_counts_are_asked_of_nobody_who_has_gone_since_the_round_began(make: MakeRun) -> None:
    """Its account would count the release, and the round would wait for its deadline once more."""

    class Gone(FakeGrid):
        def get_node_ids(self) -> list[int]:
            trained = any(message.metadata.message_type == "train" for message in self.sent)
            return [node for node in super().get_node_ids() if node != 1001 or not trained]

    grid = Gone(2, _counts())
    server = Server(_validating(make, every=1, num_rounds=1), grid)
    server.start()
    assert _asked(grid) == [(1, 1000), (1, 1001)]
    assert _asked(grid, "evaluate") == [(1, 1000)]
    assert [item.num_releases for item in server.strategy.institutions.values()] == [1, 0]


def test_without_a_quorum_nobody_is_asked_or_charged_and_each_is_told_why(make: MakeRun) -> None:
    """Site-0 is there and site-1 is not: what the one trained would be thrown away."""

    class Gone(FakeGrid):
        def get_node_ids(self) -> list[int]:
            return [node for node in super().get_node_ids() if node != 1001 or not self.sent]

    grid = Gone(2, _honest())
    server = Server(make(min_clients=2), grid)
    with pytest.raises(ConfideError):
        server.start()
    assert _asked(grid) == []
    assert [item.num_steps for item in server.strategy.institutions.values()] == [0, 0]
    told = {event["institution"]: event["reason"] for event in server.events if event["event"] == "dropped"}
    asked = "not asked, because fewer than federation.min_clients were connected"
    assert told == {"site-0": asked, "site-1": "not connected"}
