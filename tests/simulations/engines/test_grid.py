"""The in-process grid: Flower's interface, no waiting, one reply at a time."""

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from support.misbehaving import dropout, schedule, straggler

from confide.server.rounds.collect import collect
from confide.simulations.engines.grid import Faults, InProcessGrid, SkippingClock, no_faults


def _app(calls: list[int]) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        node = int(context.node_config["partition-id"])
        calls.append(node)
        if node == 3:
            raise ValueError("a private text")
        return Message(RecordDict({"node": ConfigRecord({"id": node})}), reply_to=message)

    return app


def _grid(calls: list[int], count: int = 3, faults: Faults = no_faults) -> tuple[InProcessGrid, list[Message]]:
    grid = InProcessGrid(_app(calls), count, SkippingClock(), faults)
    content = RecordDict({"ask": ConfigRecord({"value": b"bytes"})})
    return grid, [grid.create_message(content, "train", node, "1", ttl=60.0) for node in grid.get_node_ids()]


def test_replies_come_one_by_one_and_in_order() -> None:
    calls: list[int] = []
    grid, messages = _grid(calls)
    replies = collect(grid, messages, SkippingClock().now() + 60, SkippingClock())
    for number, reply in enumerate(replies):
        assert calls == list(range(number + 1)), "a client runs when its reply is asked for"
        assert reply.content["node"]["id"] == number
        assert reply.metadata.src_node_id == 1000 + number
    assert len(calls) == 3


def test_an_app_that_raises_is_an_error_without_its_text() -> None:
    grid, messages = _grid([], count=4)
    reply = list(grid.send_and_receive(messages))[3]
    assert reply.has_error()
    assert "private" not in str(reply.error.reason)


def test_late_replies_come_when_they_are_due() -> None:
    clock = SkippingClock()
    faults = schedule({(1000, "1"): straggler(30.0), (1001, "1"): straggler(10.0), (1002, "1"): dropout})
    grid = InProcessGrid(_app([]), 3, clock, faults)
    content = RecordDict({"ask": ConfigRecord({"value": 1})})
    messages = [grid.create_message(content, "train", node, "1", ttl=60.0) for node in grid.get_node_ids()]
    began = clock.now()
    replies = [
        (reply.content["node"]["id"], clock.now() - began) for reply in collect(grid, messages, began + 60, clock)
    ]
    assert [node for node, _ in replies] == [1, 0]
    assert [after for _, after in replies] == pytest.approx([10, 30], abs=2)
    assert clock.now() - began == pytest.approx(60, abs=2)


def test_the_clock_skips_and_goes_on() -> None:
    clock = SkippingClock()
    before = clock.now()
    clock.sleep(1000.0)
    assert clock.now() - before == pytest.approx(1000, abs=5)
