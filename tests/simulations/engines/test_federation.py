"""Federations on the in-process grid: what is learnt, what is sent, what it costs."""

import gc
import sqlite3
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from safetensors.numpy import load
from support import misbehaving
from support.federations import always, flat

from confide.client.training import shares
from confide.common.config.run import RunConfig
from confide.common.protocol.answers import Envelope, Update
from confide.common.protocol.asks import Ask
from confide.common.protocol.signed import read_receipt
from confide.common.protocol.wire import sha256
from confide.server.results.run_directory import spent
from confide.server.rounds.participation import draw
from confide.simulations.engines.grid import Answer, no_faults

MakeRun = Callable[..., RunConfig]
Federate = Callable[..., Any]  # of conftest: gives a `Ran`


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"adapter": {"train": "AB"}, "federation": {"server_optimizer": "none", "weights": "declared"}},
        {"task": {"pooling": "native", "labels": ["negative", "positive"]}, "local": {"steps": 2}},
        {"federation": {"aggregation": "median"}, "adapter": {"layers": "top:1"}},
        {"federation": {"aggregation": "median"}, "privacy": {"unit": "none"}},
    ],
    ids=["default", "AB", "native", "median", "no-privacy"],
)
def test_a_federation_trains(federate: Federate, locked: MakeRun, sections: dict[str, Any]) -> None:
    run = locked(**{**sections, "federation": {"num_rounds": 2, **sections.get("federation", {})}})
    ran = federate(run)
    result = ran.state
    assert ran.accepted == {"site-0": 2, "site-1": 2, "site-2": 2}
    assert np.isfinite(flat(result.trained.average)).all()
    start = flat(ran.state.job.initial)
    assert (flat(result.trained.average) != start).mean() > 0.9
    assert all(np.any(value != ran.state.job.initial[name]) for name, value in result.trained.average.items())
    assert 0 <= result.scores.mean <= 1
    assert ran.state.trained.round == 2
    assert [len(accepted) for accepted in ran.saved] == [3, 3]
    assert {item.num_steps for item in result.everybody()} == {run.num_steps}


def test_noise_differs_between_runs_and_between_institutions(federate: Federate, locked: MakeRun) -> None:
    """Same public seed, same records: the private coins are fresh all the same."""
    first, second = federate(locked()), federate(locked())
    assert first.state.job.initial.keys() == second.state.job.initial.keys()
    np.testing.assert_array_equal(flat(first.state.job.initial), flat(second.state.job.initial))
    assert not (flat(first.state.trained.adapter) == flat(second.state.trained.adapter)).any()
    hashes = [accepted["payload_sha256"] for ran in (first, second) for one in ran.saved for accepted in one]
    assert len(set(hashes)) == len(hashes) == 12


def test_it_learns_without_privacy(federate: Federate, locked: MakeRun) -> None:
    """All records of one label: a few steps must be enough."""
    local = {"nominal_units": 8, "sampling_probability": 1.0, "learning_rate": 2.0}
    run = locked(
        federation={"num_rounds": 8, "server_optimizer": "none", "average_decay": 0.0},
        local=local,
        privacy={"unit": "none"},
        evaluation={"every": 1},
    )
    ran = federate(run)
    assert len(ran.of("round")) == 8
    assert all("score" in event for event in ran.of("round"))
    assert np.linalg.norm(flat(ran.state.trained.adapter) - flat(ran.state.job.initial)) > 0.01


def test_without_public_data_nothing_is_evaluated(federate: Federate) -> None:
    ran = federate(public=False)
    assert not any("score" in event for event in ran.of("round"))
    assert ran.state.scores is None
    assert ran.state.finished


def test_every_institution_gives_noised_counts_in_the_rounds_of_the_plan(federate: Federate, locked: MakeRun) -> None:
    run = locked(
        federation={"num_rounds": 5},
        evaluation={"validation_every": 2},
        simulation={"data": "none", "validation_fraction": 0.5},
    )
    ran = federate(run)
    counts = [event.get("validation", {}) for event in ran.of("round")]
    assert [sorted(given) for given in counts] == [[], ["site-0", "site-1", "site-2"]] * 2 + [[]]
    numbers = [value for given in counts for cells in given.values() for value in cells.values()]
    assert len(set(numbers)) == len(numbers) == 12, "noise of its own in each"
    assert {item.num_releases for item in ran.state.everybody()} == {2} == {run.validation_releases}
    assert ran.accepted == {"site-0": 5, "site-1": 5, "site-2": 5}


def test_every_institution_gets_the_same_ask_but_for_its_receipt(federate: Federate) -> None:
    seen: dict[str, set[str]] = {}
    receipts = []

    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        ask = Ask.from_content(message.content)
        receipts.append(ask.receipt)
        seen.setdefault(message.metadata.group_id, set()).add(replace(ask, receipt="").content().object_id)
        return no_faults(message, answer)

    ran = federate(faults=fault)
    assert {number: len(contents) for number, contents in seen.items()} == {"0": 1, "1": 1, "2": 1}
    assert receipts[:6] == [""] * 6, "nothing was received before the second round"
    assert [read_receipt(Envelope, text)[0].institution for text in receipts[6:]] == ["site-0", "site-1", "site-2"]
    assert ran.state.bytes_per_client_round > 0


def test_the_update_is_the_schema_of_the_adapter_and_no_more(federate: Federate) -> None:
    payloads = []

    def fault(message: Message, answer: Answer) -> tuple[float, Message | None]:
        reply = answer()
        if message.metadata.group_id != "0":
            assert list(reply.content) == ["update"]
            assert reply.content["update"].keys() == {"safetensors", "envelope", "signature"}
            payloads.append(reply.content["update"]["safetensors"])
        return 0.0, reply

    ran = federate(faults=fault)
    shapes = {name: value.shape for name, value in ran.state.job.initial.items()}
    for payload in payloads:
        assert {name: value.shape for name, value in load(payload).items()} == shapes
    assert {len(payload) for payload in payloads} == {ran.state.bytes_per_client_round}


# Many institutions, a few of which train in a round


def _rows(ran: Any, name: str) -> list[str]:
    return [row["kind"] for row, _ in ran.sites.ledgers[name].rows()]


def test_a_ledger_is_charged_for_the_rounds_that_ask_it_and_for_no_other(federate: Federate, locked: MakeRun) -> None:
    run = locked(federation={"num_rounds": 4, "participation": 0.4}, local={"steps": 2})
    ran = federate(run, count=5)
    names = [f"site-{number}" for number in range(5)]
    drawn = [name for number in (1, 2, 3, 4) for name in draw(names, run.federation, run.study.seed, number)]
    assert len(drawn) == 8
    for item in ran.state.institutions.values():
        account, rows = ran.sites.ledgers[item.name].account(), _rows(ran, item.name)
        study = account.studies["test"]
        assert study.steps == run.num_steps == 8, "the plan covers every round"
        assert study.reserved_steps == item.num_steps == 2 * drawn.count(item.name)
        assert (rows.count("reserve"), item.accepted) == (drawn.count(item.name),) * 2
    spending = {item.name: spent(run, item) for item in ran.state.institutions.values()}
    assert {name for name, epsilon in spending.items() if epsilon} == set(drawn)
    assert max(spending.values()) < run.privacy.target_epsilon


def test_institutions_on_one_connection_have_accounts_of_their_own(federate: Federate, locked: MakeRun) -> None:
    ran = federate(locked(), faults=always(misbehaving.dropout))
    trained = ["dataset", "open", "reserve", "seal", "ack", "reserve", "seal"]  # two rounds
    assert _rows(ran, "site-0") == _rows(ran, "site-2") == trained
    assert _rows(ran, "site-1") == ["dataset", "open"]
    ids = [ran.sites.ledgers[name].rows()[0][0]["dataset"] for name in ("site-0", "site-1", "site-2")]
    assert ids == ["simulated-site-0", "simulated-site-1", "simulated-site-2"]


def _alive(*kinds: type) -> Counter[type]:
    gc.collect()
    return Counter(type(item) for item in gc.get_objects() if isinstance(item, kinds))


def test_what_stays_in_memory_does_not_grow_with_the_institutions(
    federate: Federate, locked: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for an account each: one sealed answer, one connection, and nothing of any message but the last."""
    run = locked(federation={"num_rounds": 2, "participation": 0.5}, local={"sampling_probability": 0.01})
    other_plan = locked(federation={"num_rounds": 2}, local={"nominal_units": 10}).canonical_json()
    connect, connections = sqlite3.connect, []
    monkeypatch.setattr(sqlite3, "connect", lambda *rest, **more: connections.append(rest) or connect(*rest, **more))
    contexts, before = Counter[type](), _alive(Ask, Update, Message, Context)  # of other tests

    def half_refuse(message: Message, answer: Answer) -> tuple[float, Message | None]:
        """A plan that is not the ledger's: the refusal is remembered."""
        if message.metadata.group_id != "0" and message.metadata.dst_node_id % 2:
            ask = Ask.from_content(message.content)
            message.content = replace(ask, run_json=other_plan, run_sha256=sha256(other_plan.encode())).content()
        if message.metadata.group_id == "2" and not contexts:
            contexts.update(_alive(Context) - before)
        return no_faults(message, answer)

    ran = federate(run, count=30, public=False, faults=half_refuse)
    assert len(ran.sites.ledgers) == 30
    assert len(ran.sites.refused) > 5
    assert _alive(Ask, Update, Message, Context) - before == {}, "no message but those that are being answered"
    assert contexts == {Context: 1}, "the server's, 45 messages later"
    assert len(ran.sites.outbox.names()) == 1
    assert len(connections) == 1


def test_a_bounded_cache_changes_no_answer(
    federate: Federate, locked: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoded records that were not kept are made again, in every round, for the same plan."""
    prepared: list[str] = []
    prepare = shares.prepare
    monkeypatch.setattr(
        shares,
        "prepare",
        lambda data, *rest, **more: (
            prepared.append(data.dataset.id.removeprefix("simulated-")) or prepare(data, *rest, **more)
        ),
    )
    monkeypatch.setattr(shares, "_MAX_SHARES", 1)
    ran = federate(locked())
    assert ran.accepted == {"site-0": 2, "site-1": 2, "site-2": 2}
    assert sorted(prepared) == ["site-0", *["site-1"] * 3, *["site-2"] * 3]


@pytest.mark.waits
def test_a_hundred_institutions_share_one_base_model(
    federate: Federate, locked: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    from confide.common.model import warm_model

    built = []
    build = warm_model.build_module

    def count(*arguments: Any) -> Any:
        built.append(arguments)
        return build(*arguments)

    monkeypatch.setattr(warm_model, "build_module", count)
    local = {"sampling_probability": 0.01}  # nearly empty draws: what counts here is what stays in memory
    run = locked(study={"name": "test", "seed": 100}, federation={"num_rounds": 1}, local=local)

    def cost(institutions: int) -> tuple[int, int]:
        """Peak of Python's and numpy's memory, and tensors that are left."""
        gc.collect()
        tracemalloc.start()
        ran = federate(run, count=institutions, public=False)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(ran.accepted.values()) == institutions
        del ran
        gc.collect()
        return peak, sum(isinstance(item, torch.Tensor) for item in gc.get_objects())

    cost(10)  # the first one loads the model
    few_bytes, few_tensors = cost(10)
    many_bytes, many_tensors = cost(100)
    assert len(built) == 1
    assert many_tensors - few_tensors < 10
    # Each holds its encoded records (8 here) and its account; it depends on what other tests imported before. The
    # weights of a model of its own would count as tensors, above.
    assert many_bytes - few_bytes < 90 * 60_000
