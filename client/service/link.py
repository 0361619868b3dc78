"""The institution's link to the server: our loop over Flower's fleet protocol. It only ever calls out.

Stock Flower starts a process for each message, polls every 3 s, ends on HTTP 500 and loses a reply that could not be
sent. Here the installed app is called in this process; no code is ever fetched.

Private names of flwr 1.41 and 1.42, in the client here and in self_test.py: `FleetHttpClient` (a method for each
request), without its `http_request_response` (it ends the process on HTTP 401); `NodeAuthHttpInterceptor` (signs with
the node's key); the protobuf requests, and the functions that pack a message as objects.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Context, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from confide.client.service.heartbeat import LEASE_HALF, News, keep_alive
from confide.client.service.intake import Intake, TooMuchError
from confide.common.shown import shown

_POLL_RUNNING, _POLL_IDLE = 0.5, 15.0  # seconds from the start of one to the next; the server holds each for up to 5 s
_STAYS_FAST = 600.0  # seconds after an ask
_MAX_ERRORS = 5  # HTTP errors, about 15 s, before an answer is given up: the server may not know its run any more

log = logging.getLogger("confide")
Answer = Callable[[Message, Context], Message]

_REFUSALS = {
    401: "the signature is not accepted: is the clock off by more than 10 s?",
    412: "an older connection of this key is still counted as alive (20 s), or the key is not approved",
}


class _FleetHttpClient(FleetHttpClient):
    """Flower's client with a bound on received bytes, and without redirects: see `Intake`."""

    def __init__(self, base_url: str, **settings: Any) -> None:
        super().__init__(base_url, **settings)
        self._client.close()
        self.intake = Intake()
        self._client = self.intake.client(settings["verify"])


class LinkLost(Exception):
    """An activation that is of no use any more."""


class Link:
    """Activate, poll, answer and send, again and again until told to stop. A paused link is not connected.

    An answer is kept until the server has taken it. The link waits out refusals, errors and a lost network.

    Args:
        address: "host:port".
        ca: PEM of the authority that the server's certificate must come from.
        key: of the node, EC.
        answer: makes the reply to an ask (the ClientApp).
        stop: ends the loop.
    """

    def __init__(
        self, address: str, ca: bytes, key: EllipticCurvePrivateKey, answer: Answer, stop: threading.Event
    ) -> None:
        self._public_key = public_key_to_bytes(key.public_key())
        self._http = _FleetHttpClient.from_server_address(
            address, insecure=False, root_certificates=ca, interceptors=[NodeAuthHttpInterceptor(key, key.public_key())]
        )
        self._answer_to, self._stop = answer, stop
        self._node: Any = None
        self._kept: Message | None = None
        self.is_paused: Callable[[], bool] = lambda: False
        self.tell: Callable[[News], None] = lambda news: None  # at every sign that the server answers, or does not

    def run(self) -> None:
        """Run until stopped."""
        wait = 0.0
        while not self._stop.is_set():
            while self.is_paused() and not self._stop.wait(_POLL_RUNNING):
                self.tell("lost")  # not connected, so that no round waits for this client
            self._activate()
            lapsed, began = threading.Event(), time.monotonic()
            threading.Thread(target=self._keep_alive, args=(self._node, lapsed), daemon=True).start()
            try:
                self._serve()
                wait = 0.0
            except Exception as lost:  # noqa: BLE001 - no answer of a server ends this process
                self.tell("lost")
                why = lost if isinstance(lost, LinkLost) else type(lost).__name__
                log.warning("link lost (%s); connecting again", why)
                wait = 1.0 if time.monotonic() - began > 60 else min(2 * wait or 1.0, 30)
            lapsed.set()
            self._deactivate()
            self._pause(wait)  # a server that answers no poll would be met a thousand times a second

    def _activate(self) -> None:
        request, wait = ActivateNodeRequest(public_key=self._public_key, heartbeat_interval=LEASE_HALF), 1.0
        while not self._stop.is_set():
            try:
                self._node = Node(node_id=self._http.ActivateNode(request).node_id)
                if self._kept is not None and self._kept.metadata.src_node_id != self._node.node_id:
                    self._kept = None  # a server that has started anew gives new node ids, and asks again
                log.info("connected")
                self.tell("connected")
                return
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                log.warning("refused (HTTP %d): %s", status, _REFUSALS.get(status, "the server has trouble"))
                wait = 2.0 if status == 412 else min(2 * wait, 30)
            except Exception as error:  # noqa: BLE001 - no network, or an answer that is none
                log.warning("no connection (%s: %s)", type(error).__name__, shown(error))
                wait = min(2 * wait, 30)
            self._pause(wait)

    def _deactivate(self) -> None:
        """End the lease now: otherwise the next activation would be refused for 20 s."""
        node, self._node = self._node, None
        try:
            if node is not None:
                self._http.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))
        except Exception:  # noqa: BLE001 - the server is gone, or the lease is over
            log.info("could not say goodbye; the server notices in 20 s")

    def _keep_alive(self, node: Any, lapsed: threading.Event) -> None:
        keep_alive(self._http, node, lambda seconds: lapsed.wait(seconds) or self._stop.is_set(), self.tell)

    def _serve(self) -> None:
        """Serve until stopped, or until paused with all asks but a sum's answered: otherwise their round would wait."""
        fast_until = time.monotonic() + 20  # after an activation the server may want to ask again
        while not self._stop.is_set():
            began, paused = time.monotonic(), self.is_paused()
            if self._kept is not None:
                self._deliver(self._kept)
            elif (ask := self._pull()) is not None:
                context = Context(ask.metadata.run_id, self._node.node_id, {}, RecordDict(), {})
                asked = time.monotonic()  # for this log, never told to the server
                self._kept, kind = self._answer_to(ask, context), shown(ask.metadata.message_type, 40)
                now = time.monotonic()
                log.info("%s, round %s: answer ready after %.3f s", kind, shown(ask.metadata.group_id, 40), now - asked)
                fast_until = now + (0 if kind == "query.done" else _STAYS_FAST)
            elif paused:
                return
            else:
                self._stop.wait(began + (_POLL_RUNNING if began < fast_until else _POLL_IDLE) - time.monotonic())

    def _pull(self) -> Message | None:
        """Return the next ask; the server may hold the poll until there is one.

        Flower hands out each ask once, even if the response is lost. A failure ends the activation, and the server asks
        the next one anew.
        """
        try:
            response = self._http.PullMessages(PullMessagesRequest(node=self._node))
            if not response.messages_list:
                return None
            if self._stop.is_set():  # set while the server held the poll
                raise LinkLost("it ends; the server asks again")
            head, tree = response.messages_list[0], response.message_object_trees[0]
            try:
                ask: Any = self._pull_parts(head.metadata.run_id, tree)
            except TooMuchError as error:  # declined like any ask without a form, or it would come again and again
                log.warning("an ask is refused, and nothing of it kept: %s", error)
                ask = message_from_proto(head)
        except httpx.HTTPError as error:
            raise LinkLost(type(error).__name__) from None
        except (ValueError, KeyError, TypeError, IndexError):
            raise LinkLost("an ask that is not one") from None
        if not isinstance(ask, Message):
            raise LinkLost("an ask that is not one")
        ask.metadata.__dict__["_message_id"] = tree.object_id  # not among the packed fields
        return ask

    def _pull_parts(self, run_id: int, tree: ObjectTree) -> Any:
        objects = {}
        for part in self._http.intake.begin(iterate_object_tree(tree)):
            pulled = self._http.PullObject(PullObjectRequest(node=self._node, run_id=run_id, object_id=part.object_id))
            if not pulled.object_available:
                raise LinkLost("the ask is gone")
            objects[part.object_id] = pulled.object_content
        return inflate_object_from_contents(tree.object_id, objects)

    def _deliver(self, reply: Message) -> None:
        """Send the answer; after any trouble send it again from the start, which is idempotent.

        A reply that Flower refuses (given up, expired, sent twice) looks like one that needs no objects. A server with
        another link.db answers HTTP 500 for ever: it sees a new activation, asks again, and gets the same bytes.
        """
        reply.metadata.__dict__["_message_id"] = reply.object_id
        wait, errors = 1.0, 0
        while not self._stop.is_set():
            try:
                if self._push(reply):
                    self._kept = None
                    return
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                if status in (403, 413):  # the run is over; larger than the server takes
                    log.warning("the answer was refused for good (HTTP %d)", status)
                    self._kept = None
                    return
                if status == 401:
                    raise LinkLost("the server does not know this connection any more") from None
                errors += 1
                if errors == _MAX_ERRORS:
                    self._kept = None
                    raise LinkLost(f"HTTP {status}, again and again; asked anew, the answer is sent") from None
                log.warning("HTTP %d; the answer is kept", status)
            except httpx.TransportError as error:
                log.warning("%s; the answer is kept", type(error).__name__)
            self._pause(wait)
            wait = min(2 * wait, 30)

    def _push(self, reply: Message) -> bool:
        objects, run_id = get_all_nested_objects(reply), reply.metadata.run_id
        request = PushMessagesRequest(
            node=self._node,
            messages_list=[message_to_proto(remove_content_from_message(reply))],
            message_object_trees=[get_object_tree(reply)],
            clientapp_runtime_list=[0.0],  # tells no times
        )
        response = self._http.PushMessages(request)
        return all(
            self._http.PushObject(
                PushObjectRequest(
                    node=self._node,
                    run_id=run_id,
                    session_id=response.session_id,
                    object_id=object_id,
                    object_content=objects[object_id].deflate(),
                )
            ).stored
            for object_id in response.objects_to_push
        )

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds * random.uniform(0.8, 1.2))  # noqa: S311 - so that clients do not come all at once
