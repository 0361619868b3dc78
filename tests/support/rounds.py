"""A server's rounds over a fake Grid, with institutions that answer by a function. No model is loaded."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from confide.common.config.run import RunConfig
from confide.common.model.scores import Scores
from confide.common.protocol.answers import Acceptance, Update, seal_envelope
from confide.common.protocol.asks import Ask
from confide.common.protocol.signatures import Identity
from confide.common.tensors import State, dump_state
from confide.server.home.registry import Member
from confide.server.rounds.loop import run_rounds
from confide.server.rounds.roster import Members
from confide.server.rounds.run_context import Event, Job, RunState
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


def accept(message: Message, name: str | None = None, units: int = 100) -> Message:
    name = name or f"site-{message.metadata.dst_node_id - 1000}"
    return Message(Acceptance(name, units, key(message).public_hex()).content(), reply_to=message)


def key(message: Message) -> Identity:
    return Identity(message.metadata.dst_node_id.to_bytes(32, "big"))


def update(message: Message, value: float) -> Message:
    return reply_with(message, "update", {name: np.full_like(tensor, value) for name, tensor in INITIAL.items()})


def reply_with(message: Message, what: str, state: State) -> Message:
    ask, payload = Ask.from_content(message.content), dump_state(state)
    names = (f"site-{message.metadata.dst_node_id - 1000}", "b" * 64)
    head = f"{message.metadata.dst_node_id:064x}"
    envelope = seal_envelope(ask, what, names, payload, head)
    return Message(Update(envelope, key(message).sign(envelope.text()), payload).content(), reply_to=message)


def honest(value: Callable[[int], float] = lambda node: 0.01 * (node - 999)) -> Reply:
    def answer(message: Message) -> Message:
        offered = message.metadata.group_id == "0"
        return accept(message) if offered else update(message, value(message.metadata.dst_node_id))

    return answer


class Server:
    """A run on a fake grid, with the events and the rounds that it saved."""

    def __init__(self, run: RunConfig, grid: Grid, *, evaluate: bool = False) -> None:
        self.run, self.grid, self.events, self.saved = run, grid, [], []
        self.evaluated: list[State] = []

        def score(state: State) -> Scores:
            self.evaluated.append(state)
            return Scores("accuracy", {"public": 0.5})

        def save(number: int, state: Any, accepted: list[dict[str, str]]) -> None:
            self.saved.append((number, accepted))

        job = Job(run, "ab" * 16, INITIAL, score if evaluate else None, self.emit, save, SkippingClock(), 0)
        self.state = RunState(job)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def start(self) -> State:
        """Carry out the run, and return its adapter."""
        run_rounds(self.state, self.grid)
        return self.state.trained.adapter


def asked_in(grid: FakeGrid, kind: str = "train") -> list[tuple[int, int]]:
    return [
        (int(message.metadata.group_id), message.metadata.dst_node_id)
        for message in grid.sent
        if message.metadata.message_type == kind
    ]


def counts(change: Callable[[Message, State], Message | None] | None = None) -> Reply:
    """Honest updates, and counts of 7 right and 3 wrong: of site-1 as ``change`` makes them."""

    def answer(message: Message) -> Message | None:
        if message.metadata.message_type != "evaluate":
            return honest()(message)
        cells: State = {"cells": np.array([7.25, 3.5], np.float32)}
        if change is not None and message.metadata.dst_node_id == 1001:
            return change(message, cells)
        return reply_with(message, "validation", cells)

    return answer


def validating(make: MakeRun, every: int = 2, **federation: Any) -> RunConfig:
    run = make(**federation)
    return run.model_copy(update={"evaluation": run.evaluation.model_copy(update={"validation_every": every})})


def rounds_of(server: Server) -> list[Event]:
    return [event for event in server.events if event["event"] == "round"]


def silent(*pairs: tuple[int, str]) -> Reply:
    """Honest, but some nodes do not answer in some rounds."""

    def answer(message: Message) -> Message | None:
        return None if (message.metadata.dst_node_id, message.metadata.group_id) in pairs else counts()(message)

    return answer


def members_of(*nodes: int) -> Members:
    return {
        node: Member(f"site-{node - 1000}", "", Identity(node.to_bytes(32, "big")).public_hex(), "") for node in nodes
    }
