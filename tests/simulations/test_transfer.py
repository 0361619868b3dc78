"""Federations whose states travel in fewer bits."""

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from safetensors.numpy import load
from support import misbehaving
from support.coins import TestCoins

from confide.client.training.shares import ClientProcess
from confide.common.config.run import RunConfig
from confide.common.protocol.answers import Update
from confide.common.protocol.asks import Ask
from confide.common.protocol.transfer import encode
from confide.simulations.engines import federation
from confide.simulations.engines.grid import Answer
from confide.simulations.studies.plan import bytes_per_client_round

MakeRun = Callable[..., RunConfig]
Federate = Callable[..., Any]  # of conftest: gives a `Ran`
PLAIN = {"num_rounds": 3, "server_optimizer": "none", "average_decay": 0.0}
# Of the length of all that was learnt, after three rounds in which adapter and updates were rounded.
TOLERANCES = {"float16": 1e-3, "int8": 0.03}


@pytest.fixture
def same_coins(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Call it before each federation: its institutions draw the same as those of the one before."""

    def restart() -> None:
        seeds = count()
        monkeypatch.setattr(
            federation, "ClientProcess", lambda now: ClientProcess(coins=lambda: TestCoins(next(seeds)), now=now)
        )

    return restart


def _learnt(ran: Any) -> np.ndarray:
    initial, adapter = ran.state.job.initial, ran.state.trained.adapter
    return np.concatenate([(adapter[name] - initial[name]).ravel() for name in initial])


@pytest.mark.parametrize("transfer", TOLERANCES)
def test_fewer_bits_change_little(
    federate: Federate, locked: MakeRun, same_coins: Callable[[], None], transfer: str
) -> None:
    same_coins()
    exact = federate(locked(federation=PLAIN))
    same_coins()
    rounded = federate(locked(federation={**PLAIN, "transfer": transfer}))
    assert rounded.accepted == exact.accepted == {"site-0": 3, "site-1": 3, "site-2": 3}
    off = np.linalg.norm(_learnt(rounded) - _learnt(exact)) / np.linalg.norm(_learnt(exact))
    assert 0 < off < TOLERANCES[transfer]


@pytest.mark.parametrize("sections", [{}, {"privacy": {"unit": "none"}}], ids=["private", "no-privacy"])
@pytest.mark.parametrize("transfer", ["float32", "float16", "int8"])
def test_both_directions_travel_in_the_form_of_the_run(
    federate: Federate, locked: MakeRun, transfer: Any, sections: dict[str, Any]
) -> None:
    """Adapters for training and for validation, and updates; counts are float32, and the server rounds nothing."""
    asked, answered = [], []

    def watch(message: Message, answer: Answer) -> tuple[float, Message | None]:
        reply = answer()
        if message.metadata.group_id != "0":
            asked.append(Ask.from_content(message.content).adapter)
            answered.append(Update.from_content(reply.content))
        return 0.0, reply

    run = locked(federation={"num_rounds": 2, "transfer": transfer}, evaluation={"validation_every": 2}, **sections)
    ran = federate(run, faults=watch)
    updates = [answer.payload for answer in answered if answer.envelope.what == "update"]
    sizes = {len(payload) for payload in asked + updates}
    assert sizes == {bytes_per_client_round(run)} == {ran.state.bytes_per_client_round}
    assert asked[0] == encode(ran.state.job.initial, transfer)
    counts = [load(answer.payload) for answer in answered if answer.envelope.what == "validation"]
    assert len(counts) == (3 if not sections else 0)
    assert all(cells["cells"].dtype == np.float32 for cells in counts)


def test_a_server_rounds_what_it_sends_and_not_what_it_has(federate: Federate, locked: MakeRun) -> None:
    ran = federate(locked(federation={**PLAIN, "transfer": "int8"}))
    large = [value for value in ran.state.trained.adapter.values() if value.size > 100]
    assert len(large) == 4
    assert all(len(np.unique(value)) > 0.9 * value.size for value in large), "numbers on a grid of 255"


def test_an_update_in_another_form_is_dropped(federate: Federate, locked: MakeRun) -> None:
    run = locked(federation={**PLAIN, "transfer": "int8"})
    for change in (
        lambda tensors: {**tensors, "values": tensors["values"].astype(np.float16)},
        lambda tensors: {**tensors, "scales": np.full_like(tensors["scales"], np.inf)},
        lambda tensors: {**tensors, "scales": np.full_like(tensors["scales"], 1e6)},
    ):
        hostile = misbehaving.malformed(change)
        ran = federate(run, faults=misbehaving.schedule({(1001, str(n)): hostile for n in (1, 2, 3)}))
        assert ran.accepted == {"site-0": 3, "site-1": 0, "site-2": 3}
