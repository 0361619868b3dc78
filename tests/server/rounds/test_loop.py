"""The round loop over a fake Grid: when a run ends, and what is evaluated. No model is loaded."""

import numpy as np
import pytest
from flwr.app import Message
from support.rounds import FakeGrid, MakeRun, Server, accept, asked_in, honest

from confide.common.errors import ConfideError


@pytest.mark.parametrize("num_rounds", [1, 2, 3, 9])
def test_a_run_without_any_good_round_fails(make: MakeRun, num_rounds: int) -> None:
    """Never a "completed" run whose adapter nobody trained."""

    def answer(message: Message) -> Message | None:
        return accept(message) if message.metadata.group_id == "0" else None

    server = Server(make(num_rounds=num_rounds), FakeGrid(2, answer))
    with pytest.raises(ConfideError, match=r"federation.min_clients"):
        server.start()
    assert not server.saved
    assert all(item.num_steps == 3 * min(num_rounds, 3) for item in server.state.institutions.values())


def test_a_quorum_in_between_starts_the_count_anew(make: MakeRun) -> None:
    def answer(message: Message) -> Message | None:
        lost = message.metadata.dst_node_id == 1001 and message.metadata.group_id in ("1", "2", "4", "5")
        return None if lost else honest()(message)

    server = Server(make(num_rounds=6, min_clients=2), FakeGrid(2, answer))
    server.start()
    assert server.state.trained.round == 2


def test_the_released_average_is_evaluated_every_so_often_and_at_the_end(make: MakeRun) -> None:
    run = make(num_rounds=5)
    run = run.model_copy(update={"evaluation": run.evaluation.model_copy(update={"every": 2})})
    server = Server(run, FakeGrid(2, honest()), evaluate=True)
    server.start()
    scored = [event["round"] for event in server.events if event["event"] == "round" and "score" in event]
    assert scored == [2, 4, 5]
    np.testing.assert_array_equal(server.evaluated[-1]["head.bias"], server.state.trained.average["head.bias"])


def test_an_adapter_that_institutions_would_refuse_ends_the_run_unsent(make: MakeRun) -> None:
    """Everybody would decline without a word, round after round, and be charged for the rounds until then."""
    for num_rounds in (20, 15):  # in the second it would be given out, and no client would keep it
        grid = FakeGrid(2, honest(lambda node: 25.0))
        server = Server(make(num_rounds=num_rounds), grid)
        with pytest.raises(ConfideError) as raised:
            server.start()
        said = str(raised.value)
        assert said.startswith("the adapter has a norm of 1060.66, and institutions take none above 1000")
        assert "lower local.learning_rate" in said
        assert [number for number, _ in server.saved] == list(range(1, 16))
        assert asked_in(grid)[-1][0] == 15
        assert not server.state.finished
    server = Server(make(num_rounds=14), FakeGrid(2, honest(lambda node: 25.0)))
    server.start()
    assert server.state.finished


def test_the_remedy_for_too_large_an_adapter_is_the_learning_rate_that_made_it(make: MakeRun) -> None:
    server = Server(make(num_rounds=3, server_optimizer="adamw", learning_rate=1e3), FakeGrid(2, honest()))
    with pytest.raises(ConfideError, match=r"lower federation\.learning_rate"):
        server.start()
