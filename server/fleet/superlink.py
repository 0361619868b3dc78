"""Flower's state in this process: nodes, runs and messages, and a Grid on them.

Private names of flwr 1.41 and 1.42, used by the server here, in flower_app.py, leftovers.py and self_test.py:
`linkstate_factory` and the LinkState's `object_store`, `session`, `create_run` and so on (runs, nodes and messages);
`MessageRes` (replies, without claiming them); `Node` (rows of deleted ones); `Task` (the lease of a run);
`TaskIdentity` (process-wide: one run at a time); `get_all_nested_objects` and other functions that pack a message.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID, ErrorCode, SubStatus
from flwr.serverapp import Grid
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.run import Run
from flwr.supercore.state.schema.corestate_models import Task
from flwr.supercore.state.schema.linkstate_models import MessageRes, Node
from flwr.supercore.task_identity import TaskIdentity
from sqlalchemy import delete, select, update

from confide.server.fleet.client_limits import MAX_BODY, Clients
from confide.server.fleet.leftovers import drop_leftovers
from confide.server.fleet.public_port import DatabaseTurn
from confide.server.rounds.collect import SystemClock, collect

log = logging.getLogger("confide")
_MAX_OBJECTS = 8  # in a reply; an honest one has three: a message, its content, a record


class FlowerState:
    """Flower's state of nodes, runs and messages. Every method is one short turn."""

    def __init__(self, app: Any, turn: DatabaseTurn, clients: Clients) -> None:
        self.state, self.turn, self.clients = app.state.linkstate_factory.state(), turn, clients

    def admit(self, node_keys: dict[str, bytes]) -> dict[int, str]:
        """Make nodes of approved keys and remove all others: link.db is disposable, the registry decides.

        Returns:
            Names by node id.
        """
        with self.turn.from_thread():
            for node in self.state.get_node_info():
                if node.public_key not in node_keys.values() and node.status != "unregistered":
                    self.state.delete_node(NOOP_FLWR_AID, node.node_id)
            # Flower keeps the row of a deleted node and refuses its key for ever. The registry may name that key again
            # after a restore from a backup.
            with self.state.session() as session:
                session.execute(delete(Node).where(Node.status == "unregistered"))
            nodes = {}
            for name, key in node_keys.items():
                known = self.state.get_node_id_by_public_key(key)
                made = known or self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0, name=name)
                nodes[int(made)] = name
            self.clients.admit(nodes, node_keys)
            return nodes

    def last_seen(self) -> dict[int, tuple[str, str | None, str | None]]:
        """Return status, time of last activation and time of last deactivation, by node id."""
        with self.turn.from_thread():
            nodes = self.state.get_node_info()
        return {node.node_id: (str(node.status), node.last_activated_at, node.last_deactivated_at) for node in nodes}

    @contextlib.contextmanager
    def run(self, grid: "LinkGrid") -> Iterator[Run]:
        """Open a Flower run without a bundle, whose one task is ours.

        Flower fails a run whose task is silent for 60 s, even after a snapshot of the machine or a change of its clock.
        Then it refuses the clients' answers for good, and round after round is charged for nothing. The lease is for a
        task in another process, which may die alone. Our task ends with link.db, so it gets no lease.
        """
        with self.turn.from_thread(), self.state.session() as session:
            run_id = self.state.create_run(
                None, None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
            )
            run = self.state.get_run_info(run_ids=[run_id])[0]
            token = self.state.claim_task(run.primary_task_id)
            if not (token and self.state.activate_task(run.primary_task_id)):
                raise RuntimeError("Flower did not start the run's task")
            session.execute(update(Task).where(Task.token == token).values(active_until=None))
        grid.set_run(run)
        outcome = SubStatus.FAILED
        try:
            yield run
            outcome = SubStatus.COMPLETED
        finally:
            self._clean_up(run, outcome)

    def _clean_up(self, run: Run, outcome: str) -> None:
        """Drop a run's messages and objects. An error here must not decide how the run ended."""
        if self.turn.closed:
            return  # the next start makes a new link.db
        try:
            with self.turn.from_thread():
                self.state.finish_task(run.primary_task_id, outcome, "")
                self.state.cleanup_run(run.run_id)
        except Exception:
            log.exception("what a run has left in link.db stays there until the server's next start")


class LinkGrid(Grid):
    """A Grid on Flower's state. Every method is one transaction, and none waits for a reply.

    Flower's own `get_message_res` is not used: it claims a reply before its objects are there, and turns a complete
    reply of a node that has since gone offline into an error.
    """

    def __init__(self, link: FlowerState) -> None:
        self._link, self._store = link, link.state.object_store
        self._run = Run.create_empty(0)
        self._asks, self._refused = dict[str, Message](), dict[str, Message]()

    def set_run(self, run: Run) -> None:
        """Take a run. TaskIdentity is process-wide."""
        self._run = run
        TaskIdentity.task_id, TaskIdentity.run_id = run.primary_task_id or 0, run.run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are online."""
        with self._link.turn.from_thread():
            return list(self._link.state.get_nodes(self._run.run_id))

    def activated_at(self) -> dict[int, float]:
        """Return the Unix time of each node's last activation. An older ask may be lost: Flower hands it out once."""
        with self._link.turn.from_thread():
            nodes = self._link.state.get_node_info()
        times = {node.node_id: node.last_activated_at for node in nodes if node.last_activated_at}
        return {node_id: datetime.fromisoformat(text).timestamp() for node_id, text in times.items()}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Store the objects and row of each message in one transaction, so that no client sees a half-stored one."""
        if all(ask.metadata.message_type == "query.offer" for ask in self._asks.values()):  # no round is open
            with self._link.turn.from_thread(), self._link.state.session() as session:
                drop_leftovers(self._store, session, self._run.run_id, self._asks)
                if not self._asks:
                    self._link.state.delete_sessions_in_run(self._run.run_id)
        return [self._push_or_refuse(message) for message in messages]

    def _push_or_refuse(self, message: Message) -> str:
        """Push a message. If a client has announced a part of it as something else, only this ask is lost."""
        try:
            return self._push(message)
        except ValueError:
            log.warning("an ask is not stored: a client has announced a part of it as something else")
            self._refused[message.object_id] = Message(Error(ErrorCode.NODE_UNAVAILABLE, "gone"), reply_to=message)
            return str(message.object_id)

    def _push(self, message: Message) -> str:
        with self._link.turn.from_thread(), self._link.state.session():
            message.metadata.__dict__["_message_id"] = message.object_id  # Flower wants them equal
            self._link.turn.before_the_next(self._link.clients.ask, message.metadata.dst_node_id)
            objects = get_all_nested_objects(message)
            for missing in self._store.preregister(self._run.run_id, get_object_tree(message)):
                self._store.put(missing, objects[missing].deflate())
            head = remove_content_from_message(message)
            if self._link.state.store_message_ins(head):
                self._asks[message.object_id] = head
            else:  # the node was revoked meanwhile; one institution must not end a run
                self._store.delete(message.object_id)
                self._refused[message.object_id] = Message(Error(ErrorCode.NODE_UNAVAILABLE, "gone"), reply_to=message)
            return str(message.object_id)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return complete replies. Half-sent ones are left for a later call."""
        ids = set(message_ids)
        wanted = MessageRes.reply_to_message_id.in_(ids)
        replies = [self._refused.pop(ask_id) for ask_id in list(self._refused) if ask_id in ids]
        with self._link.turn.from_thread(), self._link.state.session() as session:
            found = select(MessageRes.message_id, MessageRes.reply_to_message_id).where(wanted)
            for reply_id, ask_id in session.execute(found).all():
                objects = self._complete_objects(reply_id)
                if objects is not None:
                    replies.append(_unpack(reply_id, self._asks[ask_id], objects))
                    self._forget(ask_id, reply_id)
        return replies

    def forget(self, ask_ids: Iterable[str]) -> None:
        """Give up asks. Flower refuses a later reply without telling the client."""
        with self._link.turn.from_thread(), self._link.state.session():
            for ask_id in ask_ids:
                self._forget(ask_id)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Return all replies until the timeout, as Flower's interface demands."""
        clock = SystemClock()
        return list(collect(self, list(messages), clock.now() + (3600 if timeout is None else timeout), clock))

    def _complete_objects(self, reply_id: str) -> dict[str, bytes] | None:
        """Return a reply's objects; None if one is still to come, {} if it is larger than any answer."""
        try:
            tree = self._store.get_object_tree(reply_id)
        except NoObjectInStoreError:  # the session of its upload has expired
            return None
        nodes, objects, size = list(islice(iterate_object_tree(tree), _MAX_OBJECTS + 1)), dict[str, bytes](), 0
        if len(nodes) > _MAX_OBJECTS:
            return {}
        for node in nodes:  # every look holds the turn, so stop at the first missing one
            content = self._store.get(node.object_id)
            if not content:  # b"": announced, but not there yet
                return None
            size += len(content)
            if size > MAX_BODY:
                return {}
            objects[node.object_id] = content
        return objects

    def _forget(self, ask_id: str, reply_id: str | None = None) -> None:
        self._link.state.delete_messages({ask_id})  # both rows
        for object_id in filter(None, (ask_id, reply_id)):
            self._store.delete(object_id)
        self._asks.pop(ask_id, None)


def _unpack(reply_id: str, ask: Message, objects: dict[str, bytes]) -> Message:
    """Return a reply from its objects. Their content is the client's claim, so compare it with the ask."""
    try:
        if not objects:
            raise ValueError("too large, or too many")
        reply: Any = inflate_object_from_contents(reply_id, objects)
        claimed = (reply.metadata.reply_to_message_id, reply.metadata.src_node_id)
        if claimed != (ask.metadata.message_id, ask.metadata.dst_node_id):
            raise ValueError("claims to answer something else")
        reply.metadata.__dict__["_message_id"] = reply_id
    except Exception:  # noqa: BLE001 - whatever a hostile reply provokes, the run goes on
        return Message(Error(ErrorCode.UNKNOWN, "malformed reply"), reply_to=ask)
    return reply  # type: ignore[no-any-return]
