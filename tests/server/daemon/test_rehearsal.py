"""A rehearsal as the server carries it out: every member has an answer, the gate judges, and nothing is kept."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from support.installations import write_site
from support.speed import CPU

from confide.client.answers.app import make_client_app
from confide.client.site.installation import open_site
from confide.common.config.run import RunConfig, lock
from confide.common.errors import InputError
from confide.common.model.adapter import get_state, reset
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import warm_model
from confide.common.protocol.answers import Acceptance, Rehearsed, declined, waiting
from confide.common.protocol.asks import Ask
from confide.common.protocol.signatures import Identity
from confide.common.protocol.versions import other_versions
from confide.common.protocol.wire import MessageError
from confide.common.tensors import State, dump_state
from confide.server.commands.admin_client import _told
from confide.server.daemon.rehearsal import Rehearsal, rehearse_round
from confide.server.home.queue import Queue
from confide.server.home.registry import Member
from confide.simulations.engines.grid import InProcessGrid, SkippingClock

MakeRun = Callable[..., RunConfig]
INITIAL: State = {"a.lora_B.weight": np.zeros((2, 3), np.float32), "head.bias": np.zeros(2, np.float32)}
KEY = "ab" * 32


class _Grid(InProcessGrid):
    """Members by their node, each with its answer; `sent` remembers the asks."""

    def __init__(self, clock: SkippingClock, answers: dict[int, Callable[[Message], Message | None]]) -> None:
        super().__init__(
            None,  # type: ignore[arg-type]
            len(answers),
            clock,
            lambda message, honest: (0.0, answers[message.metadata.dst_node_id](message)),
        )
        self.sent: list[Message] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        self.sent += messages
        return super().push_messages(messages)


def _members(count: int) -> dict[int, Member]:
    return {1000 + index: Member(f"site-{index}", "pem", KEY, "today") for index in range(count)}


def _good(message: Message, **changes: Any) -> Message:
    return _with({name: np.full_like(value, 0.01) for name, value in INITIAL.items()}, message, **changes)


def _with(state: State, message: Message, *, name: str = "", key: str = KEY, units: int = 100) -> Message:
    acceptance = Acceptance(name or f"site-{message.metadata.dst_node_id - 1000}", units, key)
    return Message(Rehearsed(acceptance, dump_state(state)).content(), reply_to=message)


def _content(content: RecordDict) -> Callable[[Message], Message]:
    return lambda message: Message(content, reply_to=message)


def _newer() -> RecordDict:
    content = other_versions()
    content["version"]["confide"] = "9.9.9\x1b[31m"
    return content


BAD: dict[str, tuple[Callable[[Message], Message | None], str]] = {
    "declines": (_content(declined()), "declined"),
    "waits": (_content(waiting()), "waiting for approval"),
    "silent": (lambda message: None, "no answer before the deadline"),
    "another version": (_content(_newer()), "the institution runs confide '9.9.9\\x1b[31m'"),
    "an error": (lambda message: Message(Error(1, "Mrs Canary"), reply_to=message), "error 1"),
    "another name": (lambda message: _good(message, name="site-0"), "another name or key than it was approved under"),
    "another key": (lambda message: _good(message, key="cd" * 32), "another name or key"),
    "no units": (lambda message: _good(message, units=0), "form: declared_units must be"),
    "an extra key": (
        lambda message: _with({**INITIAL, "more": np.zeros(1, np.float32)}, message),
        "refused by the gate: ",
    ),
    "another shape": (
        lambda message: _with({**INITIAL, "head.bias": np.zeros(3, np.float32)}, message),
        "refused by the gate: tensor head.bias",
    ),
    "nan": (
        lambda message: _with({name: value + np.nan for name, value in INITIAL.items()}, message),
        "refused by the gate: norm",
    ),
    "a huge norm": (
        lambda message: _with({name: value + 1e6 for name, value in INITIAL.items()}, message),
        "refused by the gate: norm",
    ),
    "no update": (
        lambda message: Message(Acceptance("site-1", 100, KEY).content(), reply_to=message),
        "refused by the gate: form",
    ),
    "nothing": (_content(RecordDict()), "form"),
}


@pytest.fixture
def run(make_run: MakeRun) -> RunConfig:
    return make_run(model={"sha256": "b" * 64}, privacy={"noise_multiplier": 1.0})


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_one_is_told_and_the_others_go_on(run: RunConfig, name: str) -> None:
    bad, expected = BAD[name]
    clock, events = SkippingClock(), list[dict[str, Any]]()
    grid = _Grid(clock, {1000: _good, 1001: bad, 1002: _good})
    rehearsal = Rehearsal(run, "ab" * 16, INITIAL, _members(3))
    assert rehearse_round(rehearsal, grid, clock, events.append) == 2
    answers = {event["institution"]: event["answer"] for event in events}
    assert answers.pop("site-1").startswith(expected)
    assert answers == {"site-0": "answered", "site-2": "answered"}
    assert "Canary" not in str(events)
    assert {message.metadata.message_type for message in grid.sent} == {"query.rehearse"}
    assert {Ask.from_content(message.content).run_json for message in grid.sent} == {run.canonical_json()}


def test_who_is_not_there_is_not_waited_for_to_the_deadline(run: RunConfig) -> None:
    clock, events = SkippingClock(), list[dict[str, Any]]()
    began = clock.now()
    rehearsal = Rehearsal(run, "ab" * 16, INITIAL, _members(2))
    assert rehearse_round(rehearsal, _Grid(clock, {1000: _good}), clock, events.append) == 1
    assert clock.now() - began < run.federation.deadline_seconds / 2
    assert [_told(event, "a-run") for event in events] == ["site-0: answered in 0.0 s\n", "site-1: not connected\n"]


@pytest.mark.parametrize("connected", [1, 2])
def test_a_rehearsal_can_be_stopped(run: RunConfig, connected: int) -> None:
    """While it waits for one who is not connected, and while one does not answer."""
    clock, stopped = SkippingClock(), list[bool]()
    grid = _Grid(clock, {1000: lambda message: None, 1001: lambda message: None} if connected == 2 else {1000: _good})
    began = clock.now()

    def is_over() -> bool:
        stopped.append(True)
        return True

    rehearsal = Rehearsal(run, "ab" * 16, INITIAL, _members(2), is_over)
    assert rehearse_round(rehearsal, grid, clock, lambda event: None) < 2
    assert clock.now() - began < 5
    assert stopped


def test_a_node_that_is_no_member_is_not_asked(run: RunConfig) -> None:
    clock = SkippingClock()
    grid = _Grid(clock, {1000: _good, 1001: _good})
    assert rehearse_round(Rehearsal(run, "ab" * 16, INITIAL, _members(1)), grid, clock, lambda event: None) == 1
    assert [message.metadata.dst_node_id for message in grid.sent] == [1000]


def test_real_clients_rehearse_without_their_records(tmp_path: Path, make_run: MakeRun, base_folder: Path) -> None:
    run = lock(make_run(local={"nominal_units": 20, "sampling_probability": 1.0}), hash_model(base_folder))
    sites = []
    for name, policy in (("mary", {}), ("jude", {"studies": []})):
        path = write_site(tmp_path / name, name=name, policy=policy)
        (tmp_path / name / "notes.jsonl").unlink()
        sites.append(open_site(path))
    model, clock, events = warm_model(run, CPU), SkippingClock(), list[dict[str, Any]]()
    reset(model.module, run.study.seed)
    members = {
        1000 + index: Member(site.config.institution.name, "pem", site.identity.public_hex(), "today")
        for index, site in enumerate(sites)
    }
    grid = InProcessGrid(make_client_app(lambda context: sites[int(context.node_config["partition-id"])]), 2, clock)
    rehearsal = Rehearsal(run, "ab" * 16, get_state(model.module), members)
    assert rehearse_round(rehearsal, grid, clock, events.append) == 1
    assert [(event["institution"], event["answer"]) for event in events] == [
        *(("mary", "answered"), ("jude", "declined"))
    ]


def test_the_answer_to_a_rehearsal_comes_back_as_it_went_out() -> None:
    rehearsed = Rehearsed(Acceptance("x", 5, Identity(bytes(32)).public_hex()), b"payload")
    assert Rehearsed.from_content(rehearsed.content()) == rehearsed
    for content in (
        RecordDict(),
        rehearsed.acceptance.content(),
        RecordDict({"rehearsed": ConfigRecord({"safetensors": b""})}),
        RecordDict({**rehearsed.acceptance.content(), "rehearsed": ConfigRecord({"safetensors": "text"})}),
    ):
        with pytest.raises(MessageError):
            Rehearsed.from_content(content)


def test_a_rehearsal_waits_in_the_queue_like_a_run_and_is_told_apart(tmp_path: Path, run: RunConfig) -> None:
    queue = Queue(tmp_path / "queue")
    assert queue.add(run).kind == "run"
    rehearsal = queue.add(run, "rehearsal")
    assert (rehearsal.kind, "rehearsal" in rehearsal.name) == ("rehearsal", True)
    assert queue.get(rehearsal.name) == rehearsal
    with pytest.raises(InputError, match="kind = 'other' must be one of"):
        queue.add(run, "other")


def test_a_queue_of_an_earlier_version_holds_runs(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"name": "old", "lineage": "ab", "status": "queued", "reason": ""}')
    assert Queue(tmp_path).get("old").kind == "run"
