"""An in-process Flower Grid: one institution at a time, deterministic order, one warm model, no sockets, no waiting.

Private names of flwr 1.41 and 1.42, used in no other file of simulations: `Run.create_empty`, `TaskIdentity` (Message
needs it, process-wide), `get_all_nested_objects` and `inflate_object_from_contents` (a message as Flower would send
it), `Metadata._message_id` (Flower's engines set it when they take a message).
"""

import heapq
import time
import uuid
from collections.abc import Callable, Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

FIRST_NODE = 1000

# A fault takes a message and a function that makes the honest reply. It returns seconds of delay, and a reply or None.
Answer = Callable[[], Message]
Faults = Callable[[Message, Answer], tuple[float, Message | None]]


def no_faults(message: Message, answer: Answer) -> tuple[float, Message | None]:
    """Give the honest reply at once."""
    return 0.0, answer()


class SkippingClock:
    """A clock that only `sleep` moves, and at once.

    So stragglers cost no time. One process does the work of one institution after the other, and that does not count
    against any deadline.
    """

    def __init__(self) -> None:
        self._start, self._skipped = time.time(), 0.0

    def now(self) -> float:
        """Return seconds since the epoch: the start of the simulation, plus the time skipped since."""
        return self._start + self._skipped

    def sleep(self, seconds: float) -> None:
        """Skip this time."""
        self._skipped += seconds


class InProcessGrid(Grid):
    """A grid that runs a ClientApp for each message when its reply is asked for.

    As on a network, messages are turned into bytes and put together again at each end. Memory is that of one message
    and one reply, whatever the number of institutions.
    """

    def __init__(self, app: ClientApp, num_nodes: int, clock: SkippingClock, faults: Faults = no_faults) -> None:
        self._app, self._clock, self._faults = app, clock, faults
        self._run, self._num_nodes = Run.create_empty(run_id=1), num_nodes
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        self._waiting: dict[str, Message] = {}
        self._late: list[tuple[float, str, Message]] = []

    def set_run(self, run: Run) -> None:
        """Set Flower's description of the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes, one for each institution."""
        return range(FIRST_NODE, FIRST_NODE + self._num_nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Take messages; each waits until its reply is asked for."""
        ids = []
        for message in messages:
            message_id = str(uuid.uuid4())
            message.metadata.__dict__["_message_id"] = message_id
            self._waiting[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return at most one reply: that to the first message that still waits, or a late one that is due."""
        if self._late and self._late[0][0] <= self._clock.now():
            return [heapq.heappop(self._late)[2]]
        message_id = next((message_id for message_id in message_ids if message_id in self._waiting), None)
        if message_id is None:
            return []
        message = self._waiting.pop(message_id)
        delay, reply = self._faults(message, lambda: self._answer(message))
        if reply is None:
            return []
        if delay:
            heapq.heappush(self._late, (self._clock.now() + delay, message_id, reply))
            return []
        return [reply]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Return all replies at once, as Flower's interface requires."""
        ids = list(self.push_messages(messages))
        return [reply for _ in ids for reply in self.pull_messages(ids)]

    def _answer(self, message: Message) -> Message:
        received = _over_the_wire(message)
        try:
            reply = self._app(message=received, context=self._context(message.metadata.dst_node_id))
        except Exception as error:  # noqa: BLE001 - as Flower's runtime does with an app that raises
            reply = Message(Error(code=2, reason=type(error).__name__), reply_to=received)
        return _over_the_wire(reply)

    def _context(self, node_id: int) -> Context:
        """Make a new context for each message: an institution's state is kept by its site."""
        return Context(
            run_id=1,
            node_id=node_id,
            node_config={"partition-id": node_id - FIRST_NODE, "num-partitions": self._num_nodes},
            state=RecordDict(),
            run_config={},
        )


def _over_the_wire(message: Message) -> Message:
    objects = {key: value.deflate() for key, value in get_all_nested_objects(message).items()}
    copy = inflate_object_from_contents(message.object_id, objects)
    if not isinstance(copy, Message):
        raise TypeError(f"a message came back as {type(copy).__name__}")
    copy.metadata.__dict__["_message_id"] = message.metadata.message_id
    return copy
