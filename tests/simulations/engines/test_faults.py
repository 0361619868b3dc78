"""Replies that are late, damaged or missing: they are dropped alone, and the others carry on."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from support import misbehaving
from support.federations import always, flat

from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError
from confide.common.protocol.answers import Update
from confide.simulations.engines.grid import Answer, Faults, no_faults

MakeRun = Callable[..., RunConfig]
Federate = Callable[..., Any]  # of conftest: gives a `Ran`


# Site-1, on node 1001, misbehaves


def _scale(factor: float) -> Faults:
    return misbehaving.malformed(lambda state: {name: value * np.float32(factor) for name, value in state.items()})


def _first(change: Callable[[np.ndarray], np.ndarray]) -> Faults:
    def apply(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        name = next(name for name in sorted(state) if state[name].ndim == 2)
        return {**state, name: change(state[name])}

    return misbehaving.malformed(apply)


def _forged(**changes: Any) -> Faults:
    """An honest payload in an envelope that says something else."""

    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        honest = Update.from_content(answer().content)
        update = Update(replace(honest.envelope, **changes), honest.signature, honest.payload)
        return 0.0, Message(update.content(), reply_to=message)

    return fault


def _from_node(node_id: int) -> Faults:
    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        reply = answer()
        reply.metadata.__dict__["_src_node_id"] = node_id
        return 0.0, reply

    return fault


SILENT = {
    "dropout": misbehaving.dropout,
    "straggler": misbehaving.straggler(10_000.0),
    "another node id": _from_node(1002),
    "no node": _from_node(5),
}
DROPPED = {
    "crash": (misbehaving.crash, "error"),
    "garbage": (misbehaving.garbage, "form"),
    "nan": (_first(lambda value: np.full_like(value, np.nan)), "norm"),
    "inf": (_first(lambda value: np.full_like(value, np.inf)), "norm"),
    "huge": (_scale(1e6), "norm"),
    "overflow": (_scale(1e30), "norm"),
    "shape": (_first(lambda value: value[:-1]), "shape"),
    "transposed": (_first(lambda value: np.ascontiguousarray(value.T)), "shape"),
    "float64": (_first(lambda value: value.astype(np.float64)), "float32"),
    "float16": (misbehaving.malformed(lambda s: {k: v.astype(np.float16) for k, v in s.items()}), "float32"),
    "extra key": (misbehaving.malformed(lambda state: {**state, "more": np.zeros(1, np.float32)}), "keys"),
    "huge extra key": (misbehaving.malformed(lambda state: {**state, "more": np.zeros(10**6, np.float32)}), "size"),
    "missing key": (misbehaving.malformed(lambda state: dict(list(state.items())[1:])), "keys"),
    "empty": (misbehaving.malformed(lambda state: {}), "keys"),
    "round": (_forged(round=7), "envelope"),
    "institution": (_forged(institution="site-2"), "envelope"),
    "lineage": (_forged(lineage="0" * 32), "envelope"),
    "study": (_forged(study="another"), "envelope"),
    "plan": (_forged(run_sha256="0" * 64), "envelope"),
    "base": (_forged(base_sha256="0" * 64), "envelope"),
    "input": (_forged(input_sha256="0" * 64), "envelope"),
    "payload": (_forged(payload_sha256="0" * 64), "payload_sha256"),
    "kind": (_forged(what="validation"), "envelope"),
}


def _others_carried_on(ran: Any) -> None:
    assert ran.accepted == {"site-0": 2, "site-1": 0, "site-2": 2}
    assert ran.state.trained.round == 2
    assert np.isfinite(flat(ran.state.trained.average)).all()
    assert [event["accepted"] for event in ran.of("round")] == [2, 2]
    for accepted in ran.saved:
        assert [item["institution"] for item in accepted] == ["site-0", "site-2"]
    assert ran.state.institutions[1001].num_steps == 2, "what was asked is spent, whatever became of the reply"


@pytest.fixture
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise AssertionError(f"slept {seconds} s")

    monkeypatch.setattr(time, "sleep", sleep)


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize("name", SILENT)
def test_who_does_not_answer_in_time_is_not_waited_for(federate: Federate, name: str) -> None:
    _others_carried_on(federate(faults=always(SILENT[name])))


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize("name", DROPPED)
def test_a_bad_reply_is_dropped_alone_and_with_its_reason(federate: Federate, name: str) -> None:
    fault, reason = DROPPED[name]
    ran = federate(faults=always(fault))
    _others_carried_on(ran)
    dropped = ran.of("dropped")
    assert [(event["round"], event["institution"]) for event in dropped] == [(1, "site-1"), (2, "site-1")]
    assert all(reason in event["reason"] for event in dropped)
    assert len(ran.state.institutions[1001].dropped) == 2
    assert all(reason in event["dropped"][0] for event in ran.of("round"))


def test_an_old_reply_counts_in_no_later_round(federate: Federate) -> None:
    kept: list[Message] = []

    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        if (message.metadata.dst_node_id, message.metadata.group_id) == (1001, "1"):
            kept.append(answer())
            return 0.0, kept[0]
        if (message.metadata.dst_node_id, message.metadata.group_id) == (1001, "2"):
            return 0.0, Message(kept[0].content, reply_to=message)
        return no_faults(message, answer)

    ran = federate(faults=fault)
    assert ran.accepted == {"site-0": 2, "site-1": 1, "site-2": 2}
    assert "envelope" in ran.of("dropped")[0]["reason"]


def test_a_late_reply_does_not_count_in_the_next_round(federate: Federate) -> None:
    """100 s late with a deadline of 60 s: it comes in during the second round and is not mistaken for its answer."""
    late = {(1001, "1"): misbehaving.straggler(100.0), (1002, "2"): misbehaving.straggler(100.0)}
    ran = federate(None, faults=misbehaving.schedule(late))
    assert ran.accepted == {"site-0": 2, "site-1": 2, "site-2": 2}, "within the default deadline of 1800 s"


def test_a_deadline_ends_the_round(federate: Federate, locked: MakeRun) -> None:
    run = locked(federation={"num_rounds": 2, "deadline_seconds": 60.0})
    late = {(1001, "1"): misbehaving.straggler(100.0), (1002, "2"): misbehaving.straggler(100.0)}
    ran = federate(run, faults=misbehaving.schedule(late))
    assert ran.accepted == {"site-0": 2, "site-1": 1, "site-2": 1}
    assert [[item["institution"] for item in accepted] for accepted in ran.saved] == [
        ["site-0", "site-2"],
        ["site-0", "site-1"],
    ]


def test_a_round_without_quorum_changes_nothing(federate: Federate, locked: MakeRun) -> None:
    run = locked(federation={"num_rounds": 3, "min_clients": 3})
    ran = federate(run, faults=misbehaving.schedule({(1001, "2"): misbehaving.dropout}))
    assert ran.state.trained.round == 2
    assert [event["round"] for event in ran.of("no_quorum")] == [2]
    assert len(ran.saved) == 2


def test_three_rounds_in_a_row_without_quorum_stop_the_run(federate: Federate, locked: MakeRun) -> None:
    run = locked(federation={"num_rounds": 9, "min_clients": 3})
    missing = misbehaving.schedule({(1001, str(number)): misbehaving.dropout for number in (1, 2, 4, 5, 6)})
    with pytest.raises(ConfideError, match=r"round 6: .*federation.min_clients = 3"):
        federate(run, faults=missing)


def test_too_few_acceptances_stop_the_run_before_round_1(federate: Federate, locked: MakeRun) -> None:
    run = locked(federation={"num_rounds": 2, "min_clients": 3})
    for fault in (misbehaving.dropout, misbehaving.garbage, misbehaving.crash):
        with pytest.raises(ConfideError, match="2 of 3 institutions accepted"):
            federate(run, faults=misbehaving.schedule({(1001, "0"): fault}))


def test_who_did_not_accept_is_not_asked(federate: Federate) -> None:
    asked = []

    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        asked.append((message.metadata.dst_node_id, message.metadata.group_id))
        drop = asked[-1] == (1001, "0")
        return (misbehaving.dropout if drop else no_faults)(message, answer)

    ran = federate(faults=fault)
    assert ran.accepted == {"site-0": 2, "site-2": 2}
    assert (1001, "1") not in asked
