"""Who is there when a round begins, and for whom it waits."""

from collections.abc import Collection
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from support.rounds import FakeGrid, MakeRun, Server, accept, honest, members_of, silent, update

from confide.common.errors import ConfideError, PolicyError
from confide.common.protocol.signatures import Identity
from confide.common.protocol.versions import other_versions
from confide.server.commands.admin_client import _told
from confide.server.home.registry import Member
from confide.server.rounds.offer import connected_quorum
from confide.server.rounds.roster import Institution
from confide.server.rounds.run_context import RunState
from confide.simulations.engines.grid import SkippingClock

NAMES = {1: "mary", 2: "jude", 3: "luke"}


def _drawn() -> dict[int, Institution]:
    return {node: Institution(name, 100) for node, name in NAMES.items()}


class Coming:
    """A clock, and a grid on which nodes are there from some second on, and until another."""

    def __init__(self, times: dict[int, tuple[float, float]]) -> None:
        self.times, self.clock = times, SkippingClock()
        self.began, self.known = self.clock.now(), dict.fromkeys(times, 1.0)

    def activated_at(self) -> dict[int, float]:
        return self.known

    def forget(self, ask_ids: Any) -> None:
        """Nothing was asked."""

    def get_node_ids(self) -> list[int]:
        return [node for node, (comes, goes) in self.times.items() if comes <= self.passed() < goes]

    def passed(self) -> float:
        return self.clock.now() - self.began


ALWAYS, NEVER = (0.0, 1e9), (1e9, 1e9)


@pytest.mark.parametrize(
    ("times", "away", "there", "after"),
    [
        ({1: ALWAYS, 2: ALWAYS, 3: ALWAYS}, (), [1, 2, 3], 0),
        ({1: ALWAYS, 2: ALWAYS, 3: (40, 1e9)}, (), [1, 2, 3], 40),
        ({1: ALWAYS, 2: ALWAYS, 3: NEVER}, (), [1, 2], 60),
        ({1: ALWAYS, 2: ALWAYS, 3: (40, 1e9)}, (3,), [1, 2], 0),
        ({1: ALWAYS, 2: ALWAYS, 3: ALWAYS}, (3,), [1, 2, 3], 0),
        ({1: ALWAYS, 2: (200, 1e9), 3: NEVER}, (), [1, 2], 260),
        ({1: ALWAYS, 2: (200, 1e9), 3: (230, 1e9)}, (2, 3), [1, 2, 3], 230),
        ({1: ALWAYS, 2: NEVER, 3: NEVER}, (), [], 300),
    ],
    ids=[
        "all",
        "one in time",
        "one for whom it waits",
        "who was away",
        "who is back",
        "a quorum",
        "a late one",
        "none",
    ],
)
def test_a_round_waits_a_minute_for_who_was_there_and_longer_for_a_quorum(
    make_run: MakeRun, times: dict[int, tuple[float, float]], away: Collection[int], there: list[int], after: float
) -> None:
    """For a quorum it waits as long as it may."""
    grid = Coming(times)
    run = make_run(federation={"min_clients": 2, "deadline_seconds": 300.0})
    job: Any = SimpleNamespace(run=run, clock=grid.clock, is_stopped=lambda: False)
    drawn = {node: Institution(name, 100, connected=node not in away) for node, name in NAMES.items()}
    found = connected_quorum(job, grid, drawn)  # type: ignore[arg-type]
    assert list(found) == there
    assert grid.passed() == pytest.approx(after, abs=0.3)
    began = grid.passed()
    assert list(connected_quorum(job, grid, drawn)) == there  # type: ignore[arg-type]
    assert grid.passed() - began == pytest.approx(0 if there else 300, abs=0.3), "who is away is not waited for again"


@pytest.mark.parametrize(("revoked", "there"), [({3}, [1, 2]), ({2, 3}, [])])
def test_who_was_revoked_is_not_waited_for_and_without_a_quorum_nobody_is_asked(
    make_run: MakeRun, revoked: set[int], there: list[int]
) -> None:
    """Who is asked is charged, and nothing is learnt from a round without a quorum."""
    grid = Coming({node: NEVER if node in revoked else ALWAYS for node in NAMES})
    for node in revoked:
        del grid.known[node]
    job: Any = SimpleNamespace(run=make_run(federation={"min_clients": 2}), clock=grid.clock, is_stopped=lambda: False)
    assert list(connected_quorum(job, grid, _drawn())) == there  # type: ignore[arg-type]
    assert grid.passed() == 0


def test_a_round_that_an_operator_stops_waits_no_longer(make_run: MakeRun) -> None:
    grid = Coming(dict.fromkeys(NAMES, NEVER))
    job: Any = SimpleNamespace(run=make_run(), clock=grid.clock, is_stopped=lambda: grid.passed() > 5)
    assert connected_quorum(job, grid, _drawn()) == {}  # type: ignore[arg-type]
    assert grid.passed() == pytest.approx(5, abs=0.3)


def test_an_offer_lasts_as_long_as_it_is_waited_for(make: MakeRun) -> None:
    """Flower refuses a reply whose ask has expired: with 600 s, who prepares for 15 minutes could never join."""
    grid = FakeGrid(2, honest())
    Server(make(deadline_seconds=7200.0), grid).start()
    assert {message.metadata.ttl for message in grid.sent[:2]} == {7800.0}


@pytest.mark.parametrize("units", [1, 10**9])
def test_a_declared_size_far_from_the_run_s_is_left_out_before_any_charge(make: MakeRun, units: int) -> None:
    """With the reason: at one unit the gate lets a norm of 84,500 through; at 10^9 the weight is all there is."""

    def answer(message: Message) -> Message:
        if message.metadata.group_id == "0":
            return accept(message, units=units if message.metadata.dst_node_id == 1000 else 100)
        return update(message, 0.04)

    server = Server(make(num_rounds=1, weights="declared"), FakeGrid(3, answer))
    keys = [Identity(node.to_bytes(32, "big")).public_hex() for node in (1000, 1001, 1002)]
    members = {1000 + index: Member(f"site-{index}", "pem", key, "today") for index, key in enumerate(keys)}
    server.state = RunState(replace(server.state.job, members=members))
    server.start()
    assert [item.name for item in server.state.everybody()] == ["site-1", "site-2"]
    [reason] = server.events[0]["others"].values()
    assert reason.startswith(f"declared_units = {units} must be within 20 times local.nominal_units = 2000")
    assert f"; site-0: declared_units = {units} must be" in _told(server.events[0], "a-run")


def test_only_members_are_asked_and_who_is_named_but_not_approved_is_told(make: MakeRun) -> None:
    """Who is not of the study must not see its offer, and would open a ledger for it."""
    run = make(num_rounds=1)
    run = run.model_copy(update={"study": run.study.model_copy(update={"institutions": ("site-0", "site-2", "jude")})})
    server = Server(run, FakeGrid(3, honest()))
    server.state = RunState(replace(server.state.job, members=members_of(1000, 1002), num_nodes=2))
    server.start()
    assert {message.metadata.dst_node_id for message in server.grid.sent} == {1000, 1002}
    assert [item.name for item in server.state.everybody()] == ["site-0", "site-2"]
    assert server.events[0]["others"] == {"jude": "named in study.institutions, but not approved at this server"}


def test_a_name_that_two_nodes_claim_is_nobody_s(make: MakeRun) -> None:
    def answer(message: Message) -> Message:
        if message.metadata.group_id == "0":
            return accept(message, name="twin" if message.metadata.dst_node_id < 1002 else None)
        return honest()(message)

    server = Server(make(), FakeGrid(4, answer))
    server.start()
    assert [item.name for item in server.state.institutions.values()] == ["site-2", "site-3"]


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
        return Message(content, reply_to=message) if message.metadata.dst_node_id == 1001 else honest()(message)

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
        return honest()(message)

    server = Server(make(), FakeGrid(3, answer))
    server.start()
    offered = next(event for event in server.events if event["event"] == "offered")
    assert offered["others"]["node 1001"].startswith("the institution runs confide '9.9.9'")
    [dropped] = [event for event in server.events if event["event"] == "dropped"]
    assert (dropped["institution"], dropped["round"]) == ("site-2", 2)
    assert dropped["reason"].startswith("the institution runs confide '9.9.9'")


def test_nobody_there(make: MakeRun) -> None:
    with pytest.raises(ConfideError, match="0 of 0 institutions"):
        Server(make(), FakeGrid(0, honest())).start()


def test_too_few_approved_are_told_before_anybody_is_asked(make: MakeRun) -> None:
    """They would set budget aside for a run that cannot begin, and the operator would wait for the deadline."""
    run = make(num_rounds=1, min_clients=2)
    run = run.model_copy(update={"study": run.study.model_copy(update={"institutions": ("site-0", "jude")})})
    server = Server(run, FakeGrid(3, honest()))
    server.state = RunState(replace(server.state.job, members=members_of(1000), num_nodes=1))
    with pytest.raises(PolicyError, match=r"^1 institutions .*min_clients = 2; not approved: jude$"):
        server.start()
    assert server.grid.sent == []


@pytest.mark.parametrize("count", [0, 2], ids=["nobody is there", "one does not answer"])
def test_a_run_can_be_stopped_while_it_is_offered(make: MakeRun, count: int) -> None:
    """The queue must not wait until the deadline."""
    grid = FakeGrid(count, silent((1001, "0")))
    server, clock = Server(make(), grid), grid._clock
    stopped_at = clock.now() + 1.0
    job = replace(server.state.job, clock=clock, is_stopped=lambda: clock.now() > stopped_at)
    server.state.job = job
    server.start()
    assert (server.state.finished, server.events) == (False, [])
    assert clock.now() < stopped_at + 1.0 < stopped_at + job.run.federation.deadline_seconds


def test_an_offer_names_who_was_not_connected_and_who_did_not_answer(make: MakeRun) -> None:
    """An operator who reads "1 of 1 accepted" would not know of the other two."""
    grid = FakeGrid(2, lambda message: None if message.metadata.dst_node_id == 1001 else honest()(message))
    server = Server(make(min_clients=3), grid)
    server.state = RunState(replace(server.state.job, members=members_of(1000, 1001, 1002), num_nodes=3))
    with pytest.raises(PolicyError) as error:
        server.start()
    assert str(error.value) == (
        "1 of 3 institutions accepted the run, federation.min_clients = 3; site-1: no answer before the deadline; "
        "site-2: not connected"
    )
    [offered] = [event for event in server.events if event["event"] == "offered"]
    assert (offered["asked"], offered["accepted"]) == (2, 1)
    assert offered["versions"].keys() == {"protocol", "confide", "flwr"}
