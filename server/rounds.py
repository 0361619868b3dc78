"""One round over a Grid: push the asks, yield replies until all are in or the deadline has passed."""

import time
from collections.abc import Iterator
from typing import Protocol

from flwr.app import Message
from flwr.serverapp import Grid

_POLL_SECONDS = 0.1


class Clock(Protocol):
    """Time as the round loop sees it; a simulation's stands still while nobody works."""

    def now(self) -> float:
        """Seconds since the epoch."""

    def sleep(self, seconds: float) -> None:
        """Let time pass."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def collect(grid: Grid, messages: list[Message], deadline: float, clock: Clock) -> Iterator[Message]:
    """Push messages and yield replies one by one as they come.

    Flower's own `send_and_receive` keeps all replies in memory and cannot finish early.

    Args:
        grid: any of the three engines'.
        messages: one for each institution.
        deadline: seconds since the epoch; later replies are not waited for.
        clock: tells the time and lets it pass.

    Yields:
        Replies that come from the node their message was sent to, one for each message at the most. Flower does not
        check this: any node may answer in another's name.
    """
    ids = list(grid.push_messages(messages))
    asked = {message_id: message.metadata.dst_node_id for message_id, message in zip(ids, messages, strict=True)}
    while asked and clock.now() < deadline:
        replies = list(grid.pull_messages(list(asked)))
        for reply in replies:
            message_id = reply.metadata.reply_to_message_id
            if asked.get(message_id) == reply.metadata.src_node_id:
                del asked[message_id]
                yield reply
        if not replies:
            clock.sleep(_POLL_SECONDS)


def wait_for_nodes(grid: Grid, count: int, deadline: float, clock: Clock) -> list[int]:
    """Node ids in order, once ``count`` nodes are there or the deadline has passed.

    Flower's simulation starts the ServerApp before its nodes have registered.
    """
    nodes = sorted(grid.get_node_ids())
    while len(nodes) < count and clock.now() < deadline:
        clock.sleep(_POLL_SECONDS)
        nodes = sorted(grid.get_node_ids())
    return nodes
