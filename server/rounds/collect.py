"""One round over a Grid: push the asks, and yield replies until all are in or the deadline has passed."""

import time
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flwr.app import Message
from flwr.serverapp import Grid

from confide.common.config.sections import FederationSection
from confide.common.errors import ConfideError
from confide.common.protocol.gate import RECEIVED_NORM_BOUND, GateError
from confide.common.protocol.transfer import decode, encode
from confide.common.tensors import State, norm_of, schema_of

OnRepeat = Callable[[Message], None]

CONNECT_SECONDS = 60.0  # for institutions that are still connecting
NOT_CONNECTED, NO_ANSWER = "not connected", "no answer before the deadline"
NOT_ASKED = "not asked, because fewer than federation.min_clients were connected"
_POLL_SECONDS = 0.1
_MAX_ASKS = 4  # to one institution in one round: the first, and three after it was away


class Clock(Protocol):
    """Time as the round loop sees it. The clock of a simulation stands still while no client works."""

    def now(self) -> float:
        """Return seconds since the epoch."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


@runtime_checkable
class RealGrid(Protocol):
    """A Grid over a network, on which an ask can be lost."""

    def activated_at(self) -> dict[int, float]:
        """Return the Unix time of each node's latest activation."""

    def forget(self, ask_ids: Iterable[str]) -> None:
        """Give up asks."""


def to_send(state: State, federation: FederationSection) -> bytes:
    """Return an adapter as it is sent, after it has passed the gate that its receivers apply.

    Institutions answer only `declined` to an adapter that is too large. So the operator would not learn why the run
    stands still.

    Raises:
        ConfideError: the institutions would refuse it.
    """
    payload = encode(state, federation.transfer)
    try:
        decode(payload, schema_of(state), federation.transfer, RECEIVED_NORM_BOUND)
    except GateError:
        rate = "local" if federation.server_optimizer == "none" else "federation"
        raise ConfideError(
            f"the adapter has a norm of {norm_of(state):.6g}, and institutions take none above "
            f"{RECEIVED_NORM_BOUND:g}; lower {rate}.learning_rate"
        ) from None
    return payload


@dataclass
class _Asked:
    message: Message
    at: float
    times: int = 1


def _ignore_repeat(message: Message) -> None:
    """Ignore a repeated ask: an offer costs an institution nothing."""


def _never() -> bool:
    """Return False: an open round runs to its end."""
    return False


def collect(
    grid: Grid,
    messages: list[Message],
    deadline: float,
    clock: Clock,
    on_repeat: OnRepeat = _ignore_repeat,
    is_over: Callable[[], bool] = _never,
) -> Iterator[Message]:
    """Push messages and yield replies one by one as they come.

    Flower's own `send_and_receive` keeps all replies in memory and cannot finish early. A node is asked again if it
    connected anew since it was asked, or if an error of Flower's came in place of its reply. Flower takes no ask for a
    node that has not connected since the server's start, and that node is asked once it connects. The content is the
    same, so that a sealed answer comes again at no charge.

    Args:
        grid: the grid of any of the three engines.
        messages: one for each institution.
        deadline: seconds since the epoch; the wait ends then.
        clock: tells the time and lets it pass.
        on_repeat: receives every message that goes out once more, before it does.
        is_over: returns whether to stop waiting.

    Yields:
        Replies from the node their message was sent to, at most one for each message. Flower does not check this: any
        node may answer in another's name.
    """
    asked = _push(grid, messages, clock)
    while asked and clock.now() < deadline and not is_over():
        replies = list(grid.pull_messages(list(asked)))
        for reply in replies:
            ask = asked.get(reply.metadata.reply_to_message_id)
            if ask is None or not _counts(grid, reply, ask.message.metadata.dst_node_id):
                continue
            del asked[reply.metadata.reply_to_message_id]
            if reply.has_error() and isinstance(grid, RealGrid) and ask.times < _MAX_ASKS:
                asked |= _ask_again(grid, ask, clock, on_repeat)
            else:
                yield reply
        if isinstance(grid, RealGrid):
            _ask_the_reconnected(grid, asked, clock, on_repeat)
        if not replies:
            clock.sleep(_POLL_SECONDS)
    if isinstance(grid, RealGrid):
        grid.forget(asked)


def _counts(grid: Grid, reply: Message, asked: int) -> bool:
    """Return whether a reply is the asked node's own, and no error about one that has yet to connect."""
    awaited = reply.has_error() and isinstance(grid, RealGrid) and asked not in grid.activated_at()
    return reply.metadata.src_node_id == asked and not awaited


def _push(grid: Grid, messages: list[Message], clock: Clock) -> dict[str, _Asked]:
    before = clock.now()  # a node that connects anew while they go out may have lost its ask
    ids = list(grid.push_messages(messages))
    return {ask_id: _Asked(message, before) for ask_id, message in zip(ids, messages, strict=True)}


def _ask_again(grid: Grid, ask: _Asked, clock: Clock, on_repeat: OnRepeat) -> dict[str, _Asked]:
    """Push the same content as a new message, because Flower hands out each message once."""
    old = ask.message
    on_repeat(old)
    meta = old.metadata
    copy = Message(old.content, meta.dst_node_id, meta.message_type, ttl=meta.ttl, group_id=meta.group_id)
    before = clock.now()
    return {name: _Asked(copy, before, ask.times + 1) for name in grid.push_messages([copy])}


def _ask_the_reconnected(grid: Grid, asked: dict[str, _Asked], clock: Clock, on_repeat: OnRepeat) -> None:
    activated = grid.activated_at() if isinstance(grid, RealGrid) else {}
    for ask_id, ask in list(asked.items()):
        if activated.get(ask.message.metadata.dst_node_id, 0.0) > ask.at and ask.times < _MAX_ASKS:
            del asked[ask_id]
            if isinstance(grid, RealGrid):
                grid.forget([ask_id])
            asked |= _ask_again(grid, ask, clock, on_repeat)


def wait_for_nodes(
    grid: Grid,
    count: int,
    deadline: float,
    clock: Clock,
    members: Container[int] | None,
    is_over: Callable[[], bool] = _never,
) -> list[int]:
    """Return sorted ids of connected members, once there are ``count``, the deadline has passed, or the run is over.

    Flower's simulation starts the ServerApp before its nodes have registered. There ``members`` is None: all count.
    """
    while True:
        nodes = sorted(node for node in grid.get_node_ids() if members is None or node in members)
        if len(nodes) >= count or clock.now() >= deadline or is_over():
            return nodes
        clock.sleep(_POLL_SECONDS)
