"""Validation counts over a fake Grid: which institutions are asked, and what is refused."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from support.rounds import (
    FakeGrid,
    MakeRun,
    Server,
    asked_in,
    counts,
    reply_with,
    rounds_of,
    validating,
)

from confide.common.protocol.answers import declined
from confide.common.protocol.asks import Ask
from confide.common.tensors import State


def test_nobody_is_asked_for_counts_unless_the_run_says_so(make: MakeRun) -> None:
    grid = FakeGrid(2, counts())
    server = Server(make(), grid)
    server.start()
    assert "evaluate" not in {message.metadata.message_type for message in grid.sent}
    assert all("validation" not in event for event in rounds_of(server))


def test_counts_are_asked_of_those_who_train_in_the_round(make: MakeRun) -> None:
    grid = FakeGrid(6, counts())
    server = Server(validating(make, every=2, num_rounds=4, participation=0.5), grid)
    server.start()
    asked = asked_in(grid, "evaluate")
    assert sorted(asked) == sorted(pair for pair in asked_in(grid) if pair[0] in (2, 4))
    assert len(asked) == 6
    for node, item in server.state.institutions.items():
        assert item.num_releases == sum(of == node for _, of in asked)


def test_a_run_without_privacy_asks_for_no_counts(make: MakeRun) -> None:
    run = validating(make, every=1)
    open_run = run.model_copy(update={"privacy": run.privacy.model_copy(update={"unit": "none"})})
    grid = FakeGrid(2, counts())
    Server(open_run, grid).start()
    assert "evaluate" not in {message.metadata.message_type for message in grid.sent}


def test_counts_of_a_round_are_of_its_released_average_and_stand_in_its_event(make: MakeRun) -> None:
    grid = FakeGrid(2, counts())
    server = Server(validating(make, num_rounds=5, average_decay=0.5), grid)
    server.start()
    asked = [message for message in grid.sent if message.metadata.message_type == "evaluate"]
    assert [message.metadata.group_id for message in asked] == ["2", "2", "4", "4"]
    averages = [Ask.from_content(message.content).adapter for message in asked]
    trained = [message for message in grid.sent if message.metadata.message_type == "train"]
    assert averages[0] == averages[1] != averages[2]
    assert not {*averages} & {Ask.from_content(message.content).adapter for message in trained}
    both = {name: {"right": 7.25, "wrong": 3.5} for name in ("site-0", "site-1")}
    assert [event.get("validation") for event in rounds_of(server)] == [None, both, None, both, None]
    assert [item.num_releases for item in server.state.institutions.values()] == [2, 2]


BAD_COUNTS: dict[str, Callable[[Message, State], Message | None]] = {
    "declined": lambda message, cells: Message(declined(), reply_to=message),
    "silent": lambda message, cells: None,
    "error": lambda message, cells: Message(Error(code=2, reason="Mrs Canary"), reply_to=message),
    "garbage": lambda message, cells: Message(RecordDict({"update": ConfigRecord()}), reply_to=message),
    "not finite": lambda message, cells: reply_with(message, "validation", {"cells": cells["cells"] * np.nan}),
    "huge": lambda message, cells: reply_with(message, "validation", {"cells": cells["cells"] * 1e20}),
    "one cell": lambda message, cells: reply_with(message, "validation", {"cells": cells["cells"][:1]}),
    "more": lambda message, cells: reply_with(message, "validation", {**cells, "loss": cells["cells"]}),
    "an update instead": lambda message, cells: reply_with(message, "update", cells),
}


@pytest.mark.parametrize("name", BAD_COUNTS)
def test_who_gives_no_counts_is_not_dropped_and_nothing_is_lost(make: MakeRun, name: str) -> None:
    server = Server(validating(make, every=1), FakeGrid(2, counts(BAD_COUNTS[name])))
    result = server.start()
    np.testing.assert_allclose(result["head.bias"], [0.03, 0.03], rtol=1e-6)
    assert [event["validation"].keys() for event in rounds_of(server)] == [{"site-0"}] * 2
    assert [(event["accepted"], event["dropped"]) for event in rounds_of(server)] == [(2, [])] * 2
    assert [item.accepted for item in server.state.institutions.values()] == [2, 2]
    assert "Canary" not in str(server.events)


def test_a_round_without_quorum_asks_for_no_counts(make: MakeRun) -> None:
    def answer(message: Message) -> Message | None:
        lost = (message.metadata.dst_node_id, message.metadata.group_id) == (1001, "1")
        return None if lost else counts()(message)

    grid = FakeGrid(2, answer)
    server = Server(validating(make, every=1, min_clients=2), grid)
    server.start()
    assert ["validation" in event for event in rounds_of(server)] == [False, True]
    assert [item.num_releases for item in server.state.institutions.values()] == [1, 1]


def test_counts_of_one_round_are_not_those_of_another(make: MakeRun) -> None:
    kept: list[RecordDict] = []

    def late(message: Message, cells: State) -> Message | None:
        kept.append(reply_with(message, "validation", cells).content)
        return Message(kept[0], reply_to=message)

    server = Server(validating(make, every=1), FakeGrid(2, counts(late)))
    server.start()
    assert ["site-1" in event["validation"] for event in rounds_of(server)] == [True, False]


def test_counts_are_asked_of_nobody_who_has_gone_since_the_round_began(make: MakeRun) -> None:
    """Its account would count the release, and the round would wait for its deadline once more."""

    class Gone(FakeGrid):
        def get_node_ids(self) -> list[int]:
            trained = any(message.metadata.message_type == "train" for message in self.sent)
            return [node for node in super().get_node_ids() if node != 1001 or not trained]

    grid = Gone(2, counts())
    server = Server(validating(make, every=1, num_rounds=1), grid)
    server.start()
    assert asked_in(grid) == [(1, 1000), (1, 1001)]
    assert asked_in(grid, "evaluate") == [(1, 1000)]
    assert [item.num_releases for item in server.state.institutions.values()] == [1, 0]
