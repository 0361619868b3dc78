"""Secure sums through both ends' real code: what opens, what does not, and what a silent or lying member costs."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from support.federations import flat

from confide.client.answers import secure_round as client_round
from confide.client.privacy.ledger import Ledger
from confide.common.config.run import RunConfig
from confide.common.privacy.secure import share
from confide.common.protocol.secure_sum import as_signed, total
from confide.common.protocol.signatures import Identity
from confide.server.rounds import secure_round
from confide.server.rounds.statements import MemoryStatements
from confide.simulations.engines import federation
from confide.simulations.engines.grid import Faults
from confide.simulations.sites.simulated_sites import simulated_secret

MakeRun = Callable[..., RunConfig]
Federate = Callable[..., Any]
NAMES = [f"site-{number}" for number in range(4)]


@pytest.fixture
def secure(make_run: MakeRun, locked: MakeRun) -> MakeRun:
    """``secure(**sections)``: a locked run of two rounds whose four institutions share the noise."""
    keys = {name: Identity(simulated_secret(make_run(), name)).public_hex() for name in NAMES}

    def factory(**sections: dict[str, Any]) -> RunConfig:
        defaults = {
            "study": {"institutions": NAMES, "keys": keys},
            "federation": {"num_rounds": 2, "min_clients": 3, "aggregation": "secure-sum", "weights": "declared"},
            "privacy": {"max_colluding": 1},
        }
        return locked(
            **{name: {**defaults.get(name, {}), **sections.get(name, {})} for name in {**defaults, **sections}}
        )

    return factory


class Heard:
    """The numbers that pass through both ends of a federation."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.shares: list[Any] = []
        self.masked: list[Any] = []
        held, added = client_round.hold_share, secure_round.total
        patch.setattr(client_round, "hold_share", lambda *args: self.shares.append(args[1][32:]) or held(*args))
        patch.setattr(secure_round, "total", lambda parts: self.masked.extend(parts) or added(parts))


def test_the_released_sum_is_the_sum_of_the_shares(
    federate: Federate, secure: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = Heard(monkeypatch)
    ran = federate(secure(federation={"num_rounds": 1}), count=4)
    assert ran.accepted == dict.fromkeys(NAMES, 1)
    shares = [np.frombuffer(share, "<u4") for share in heard.shares]
    assert len(shares) == len(heard.masked) == 4
    assert (total(heard.masked) == total(shares)).all()
    assert np.abs(as_signed(total(shares))).max() < 2**30
    for masked in heard.masked:
        assert not any((masked == share).mean() > 0.01 for share in shares)


def test_a_federation_learns_and_each_institution_is_charged_a_step_a_round(
    federate: Federate, secure: MakeRun
) -> None:
    ran = federate(secure(), count=4)
    assert ran.accepted == dict.fromkeys(NAMES, 2)
    assert {item.num_steps for item in ran.state.everybody()} == {2}
    start = flat(ran.state.job.initial)
    assert (flat(ran.state.trained.average) != start).mean() > 0.9
    assert [len(accepted) for accepted in ran.saved] == [4, 4]
    assert ran.state.bytes_per_client_round == 4 * start.size  # of a masked sum; the adapter that comes in is float32
    for ledger in ran.sites.ledgers.values():
        kinds = [row["kind"] for row, _ in ledger.rows()]
        assert kinds.count("reserve") == kinds.count("seal") == kinds.count("release") == 2


def test_the_noise_of_the_sum_is_what_the_plan_says(
    federate: Federate, secure: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No unit is drawn: what is left is the noise of four shares, of which the plan counts two."""
    heard, run = Heard(monkeypatch), secure(federation={"num_rounds": 1})
    monkeypatch.setattr(share, "draw_units", lambda plan, coins, num_units: [])
    federate(run, count=4)
    found = as_signed(total(heard.masked)).astype(float)
    variance = 4 * (run.privacy.share_variance or 0)
    assert abs(found.var() / variance - 1) < 5 * np.sqrt(2 / found.size)


def _silent_in(kind: str, node: int = 1001, rounds: tuple[str, ...] = ("1",)) -> Faults:
    def fault(message: Message, answer: Callable[[], Message]) -> tuple[float, Message | None]:
        metadata = message.metadata
        is_it = (metadata.message_type, metadata.dst_node_id) == (kind, node) and metadata.group_id in rounds
        return (0.0, None) if is_it else (0.0, answer())

    return fault


def test_a_member_that_is_silent_before_the_members_are_fixed_costs_nothing(
    federate: Federate, secure: MakeRun
) -> None:
    ran = federate(secure(), count=4, faults=_silent_in("train"))
    assert ran.accepted == {**dict.fromkeys(NAMES, 2), "site-1": 1}
    assert not ran.of("void")


def test_a_member_that_never_sends_its_share_voids_one_round_and_is_benched(
    federate: Federate, secure: MakeRun
) -> None:
    ran = federate(secure(federation={"num_rounds": 3}), count=4, faults=_silent_in("query.sum", rounds=("1", "2")))
    assert ran.of("void") == [{"event": "void", "round": 1, "missing": ["site-1"]}]
    assert ran.of("benched") == [{"event": "benched", "round": 1, "institutions": ["site-1"]}]
    assert ran.accepted == {**dict.fromkeys(NAMES, 2), "site-1": 0}
    assert [len(accepted) for accepted in ran.saved] == [3, 3]
    assert ran.state.trained.round == 2
    first = next(event for event in ran.of("round") if event["round"] == 1)
    assert first["accepted"] == 0
    assert all("void without site-1" in line or line.startswith("site-1: no answer") for line in first["dropped"])


def test_nobody_is_benched_when_nobody_answers(federate: Federate, secure: MakeRun) -> None:
    """It was the server's own network; the next round has all of them."""

    def lost(message: Message, answer: Callable[[], Message]) -> tuple[float, Message | None]:
        gone = message.metadata.message_type == "query.sum" and message.metadata.group_id == "1"
        return (0.0, None) if gone else (0.0, answer())

    ran = federate(secure(), count=4, faults=lost)
    assert ran.state.benched == set()
    assert ran.accepted == dict.fromkeys(NAMES, 1)


def _other_payload(message: Message, answer: Callable[[], Message]) -> tuple[float, Message | None]:
    reply = answer()
    if (message.metadata.message_type, message.metadata.dst_node_id) != ("query.sum", 1001):
        return 0.0, reply
    record = dict(reply.content["masked"])
    record["payload"] += b"\0\0\0\0"
    return 0.0, Message(RecordDict({"masked": ConfigRecord(record)}), reply_to=message)


def test_a_masked_share_that_is_not_its_member_s_voids_the_round(federate: Federate, secure: MakeRun) -> None:
    ran = federate(secure(), count=4, faults=_other_payload)
    assert [event["missing"] for event in ran.of("void")] == [["site-1"]]
    assert "payload_sha256" in next(event["reason"] for event in ran.of("dropped"))


def test_a_copied_mask_key_is_left_out_before_the_members_are_fixed(federate: Federate, secure: MakeRun) -> None:
    """Else every honest member would refuse the sum, and be named missing."""
    first: list[dict[str, Any]] = []

    def copying(message: Message, answer: Callable[[], Message]) -> tuple[float, Message | None]:
        reply = answer()
        if message.metadata.message_type == "train":
            values = json.loads(reply.content["share"]["envelope"])
            if message.metadata.dst_node_id == 1000:
                first.append(values)
            if message.metadata.dst_node_id == 1003:
                text = json.dumps(values | {"mask_key": first[-1]["mask_key"]}, sort_keys=True, separators=(",", ":"))
                run = RunConfig.model_validate_json(message.content["ask"]["run_json"])
                signature = Identity(simulated_secret(run, "site-3")).sign(text)
                content = RecordDict({"share": ConfigRecord({"envelope": text, "signature": signature})})
                return 0.0, Message(content, reply_to=message)
        return 0.0, reply

    ran = federate(secure(federation={"num_rounds": 1}), count=4, faults=copying)
    assert ran.accepted == {**dict.fromkeys(NAMES, 1), "site-3": 0}
    assert [event["reason"] for event in ran.of("dropped")] == ["mask_key: that of another institution"]
    assert not ran.of("void")


def test_what_a_round_has_released_comes_again_free_after_a_crash_of_the_server(
    federate: Federate, secure: MakeRun
) -> None:
    """The statement is on the disk, its answers are lost: the same members are asked for the same sum."""
    asked: list[str] = []

    def lost_once(message: Message, answer: Callable[[], Message]) -> tuple[float, Message | None]:
        reply = answer()
        if message.metadata.message_type == "query.sum":
            asked.append(message.content["sum"]["statement"])
            again = answer()  # the server was killed: it resumes and asks once more
            assert again.content["masked"] == reply.content["masked"]
        return 0.0, reply

    ran = federate(secure(federation={"num_rounds": 1}), count=4, faults=lost_once)
    assert len(set(asked)) == 1
    assert ran.accepted == dict.fromkeys(NAMES, 1)
    for ledger in ran.sites.ledgers.values():
        assert [row["kind"] for row, _ in ledger.rows()].count("release") == 1


@pytest.mark.parametrize("damage", ["", "[]", '{"members":[["{}","0"]],"protocol":"confide-sum-1"}'])
def test_a_damaged_statement_voids_its_round_and_no_other_is_shown(
    federate: Federate, secure: MakeRun, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    kept = MemoryStatements.get
    monkeypatch.setattr(MemoryStatements, "get", lambda self, number: damage if number == 1 else kept(self, number))
    ran = federate(secure(), count=4)
    assert ran.of("void") == [{"event": "void", "round": 1, "missing": []}]
    assert [event["round"] for event in ran.of("sum_started")] == [2]
    assert ran.accepted == dict.fromkeys(NAMES, 1)
    assert ran.state.benched == set()


def test_a_share_leaves_under_one_statement(federate: Federate, secure: MakeRun) -> None:
    """After the sum, the server shows a statement without site-3: the difference of two sums would be its share."""
    second: list[list[str]] = []

    def greedy(message: Message, answer: Callable[[], Message]) -> tuple[float, Message | None]:
        reply = answer()
        if message.metadata.message_type == "query.sum" and message.metadata.dst_node_id == 1000:
            text = json.loads(message.content["sum"]["statement"])
            text["members"] = text["members"][:3]
            content = message.content["sum"]["statement"]
            message.content["sum"]["statement"] = json.dumps(text, sort_keys=True, separators=(",", ":"))
            second.append(list(answer().content))
            message.content["sum"]["statement"] = content
        return 0.0, reply

    federate(secure(federation={"num_rounds": 1}), count=4, faults=greedy)
    assert second == [["declined"]]


def test_a_statement_is_kept_before_anybody_sees_it(
    federate: Federate, secure: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    put = MemoryStatements.put
    monkeypatch.setattr(
        MemoryStatements, "put", lambda self, number, text: kept.append(text) or put(self, number, text)
    )
    shown: list[tuple[str, bool]] = []

    def watching(message: Message, answer: Callable[[], Message]) -> tuple[float, Message | None]:
        if message.metadata.message_type == "query.sum":
            text = message.content["sum"]["statement"]
            shown.append((text, text in kept))
        return 0.0, answer()

    federate(secure(), count=4, faults=watching)
    assert [was_kept for _, was_kept in shown] == [True] * 8
    assert len({text for text, _ in shown}) == len(kept) == 2


def test_a_run_that_is_stopped_ends_its_open_sum_first(
    federate: Federate, secure: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each member has spent its step, and a sum that is left open would be void."""
    stopped = list[bool]()
    monkeypatch.setattr(federation, "Job", partial(federation.Job, is_stopped=lambda: bool(stopped)))

    def stopping(message: Message, answer: Callable[[], Message]) -> tuple[float, Message | None]:
        stopped.extend([True] * (message.metadata.message_type == "query.sum"))
        return 0.0, answer()

    ran = federate(secure(), count=4, faults=stopping)
    assert ran.accepted == dict.fromkeys(NAMES, 1)
    assert (ran.state.round, ran.state.finished, ran.of("void")) == (1, False, [])


def test_no_byte_of_a_share_leaves_as_it_is(
    federate: Federate, secure: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard, left = Heard(monkeypatch), list[bytes]()

    def listening(message: Message, answer: Callable[[], Message]) -> tuple[float, Message | None]:
        reply = answer()
        left.extend(str(dict(record)).encode() for record in reply.content.values())
        left.extend(value for record in reply.content.values() for value in record.values() if isinstance(value, bytes))
        return 0.0, reply

    federate(secure(federation={"num_rounds": 1}), count=4, faults=listening)
    for held in heard.shares:
        digest = hashlib.sha256(held)
        pieces = [held[start : start + 16] for start in range(0, len(held) - 16, 16)]
        for piece in (*pieces, digest.digest(), digest.hexdigest().encode()):
            assert not any(piece in sent for sent in left)


def test_rows_of_a_ledger_show_nothing_of_a_share(federate: Federate, secure: MakeRun) -> None:
    ran = federate(secure(federation={"num_rounds": 1}), count=4)
    ledger: Ledger = ran.sites.ledgers["site-0"]
    release = next(row for row, _ in ledger.rows() if row["kind"] == "release")
    assert {"reserve", "statement_sha256", "members", "sha256", "bytes"} <= set(release)
    assert release["members"] == 4
