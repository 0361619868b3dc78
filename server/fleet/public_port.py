"""What the public port serves: Flower's fleet paths and health, one request at a time, none large, none without end."""

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import uvicorn

from confide.server.fleet.client_limits import MAX_BODY, Clients
from confide.server.fleet.request_bodies import SMALL_BODY, Bodies, BodyRefusedError, PeerGoneError, Receive

# Exact paths, those that our client calls. get-fab, which hands out code, is not among them, nor are get-run and the
# Control and Runtime APIs.
_NAMES = "activate-node deactivate-node send-node-heartbeat pull-messages push-messages pull-object push-object"
FLEET_PATHS = frozenset(f"/v1/fleet/{name}" for name in _NAMES.split())
_PUSH_MESSAGES, _PUSH_OBJECT = "/v1/fleet/push-messages", "/v1/fleet/push-object"
_PUSHES = (_PUSH_MESSAGES, _PUSH_OBJECT)
_PULL = "/v1/fleet/pull-messages"
_HEARTBEAT = "/v1/fleet/send-node-heartbeat"
_KEY_HEADER = b"flwr-public-key"
_MOST_HEAD = 2**14  # bytes; ours is a kilobyte
_KNOWN = (200, 403)  # Flower's answers after it has checked the signature; 403: the run is over

Send = Callable[[Any], Awaitable[None]]


class DatabaseTurn:
    """Whose turn it is at the database: fleet requests (in the event loop) and the run (in a thread).

    Flower's SQLite transactions begin as readers and become writers; two at once end in "database is locked" at once,
    whatever the timeout, and the client sees HTTP 500 (50 clients did that).
    """

    def __init__(self) -> None:
        self.semaphore = asyncio.Semaphore(1)
        self.loop: asyncio.AbstractEventLoop | None = None  # set when the server starts

    @contextlib.contextmanager
    def from_thread(self) -> Iterator[None]:
        """Hold the turn in a thread other than the event loop's."""
        if self.loop is None:
            raise RuntimeError("the server has not started")
        asyncio.run_coroutine_threadsafe(self.semaphore.acquire(), self.loop).result()
        try:
            yield
        finally:
            self.loop.call_soon_threadsafe(self.semaphore.release)

    def before_the_next(self, act: Callable[[int], None], node_id: int) -> None:
        """Have the event loop act on a node; called with the turn held in a thread, it acts before the next turn."""
        if self.loop is None:
            raise RuntimeError("the server has not started")
        self.loop.call_soon_threadsafe(act, node_id)


class FleetGate:
    """ASGI application around Flower's: a list of paths, bounds on bodies, one request at a time.

    A slow peer waits for itself: a request is read before its turn, and the answer is sent after it. And a client that
    has nothing to pull waits outside the turn, so that it need not ask often: an empty pull costs Flower 9 ms.
    """

    def __init__(self, app: Any, turn: DatabaseTurn, clients: Clients) -> None:
        self._app, self._turn, self._clients, self._bodies = app, turn, clients, Bodies()
        self._line, self._beating = asyncio.Semaphore(1), set[bytes]()  # keys: see `_our_turn`

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's start and end."""
        if scope["type"] == "lifespan":
            self._turn.loop = asyncio.get_running_loop()
            await self._app(scope, receive, send)
        elif scope.get("path") == "/health":
            await self._app(scope, receive, send)
        elif scope["type"] != "http" or scope["path"] not in FLEET_PATHS:
            await _refuse(send, 404)
        elif sum(len(name) + len(text) for name, text in scope["headers"]) > _MOST_HEAD:
            await _refuse(send, 431)  # h11 bounds only a head that comes in pieces
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        key = _key(scope)
        most = MAX_BODY if scope["path"] == _PUSH_OBJECT and self._clients.knows(key) else SMALL_BODY
        try:
            async with self._bodies.read(scope, receive, key, most) as body:
                answer = await self._wait_and_hand_on(scope, body, receive)
        except BodyRefusedError as refused:
            answer = _refusal(refused.status)
        except PeerGoneError:
            return
        for event in answer:
            await send(event)

    async def _wait_and_hand_on(self, scope: Any, body: bytes, receive: Receive) -> list[Any]:
        after = asyncio.ensure_future(receive())  # after the body nothing but "http.disconnect" comes
        try:
            if scope["path"] == _PULL:
                # First the wait, then Flower, once: asking it before and after would cost an empty pull twice, and all
                # that a poll saves. A signature is good for 300 s; who has none is refused after the wait.
                await self._clients.wait_for_ask(_key(scope), after)
            return await self._hand_on(scope, body, after)
        finally:
            after.cancel()

    async def _hand_on(self, scope: Any, body: bytes, after: "asyncio.Future[Any]") -> list[Any]:
        """Flower's answer to a whole request, or ours where it is not to reach Flower."""
        unread = [{"type": "http.request", "body": body, "more_body": False}]
        answer: list[Any] = []

        async def replay() -> Any:
            return unread.pop() if unread else await asyncio.shield(after)

        async def collect(event: Any) -> None:
            answer.append(event)

        key = _key(scope)
        async with self._our_turn(scope["path"], key):
            if (refusal := self._instead(scope["path"], key, len(body), after)) is not None:
                return refusal
            await self._app(scope, replay, collect)
            if answer and _counts(scope["path"], answer[0]["status"]):
                self._clients.count(key, len(body))
            if scope["path"] == _PULL and answer and answer[0]["status"] == 200:
                self._clients.has_pulled(key)
        return answer

    @contextlib.asynccontextmanager
    async def _our_turn(self, path: str, key: bytes) -> AsyncIterator[None]:
        """Hold the turn. Who waits for it is the run, a heartbeat of each client, and the first of everything else.

        Flower's client waits 5 s for a heartbeat, and behind the requests of 50 clients on a busy machine it took
        longer. But anybody can send one: without a bound, strangers' would starve everything else.
        """
        if path != _HEARTBEAT or not self._clients.knows(key) or key in self._beating:
            async with self._line, self._turn.semaphore:
                yield
            return
        self._beating.add(key)
        try:
            async with self._turn.semaphore:
                yield
        finally:
            self._beating.remove(key)

    def _instead(self, path: str, key: bytes, size: int, after: "asyncio.Future[Any]") -> list[Any] | None:
        """Our answer instead of Flower's; None: it is Flower's turn."""
        if after.done() and after.result()["type"] == "http.disconnect":
            return []  # Flower hands each ask out once: who went away while it waited must not pull one
        if path == _PULL and self._clients.closed:
            return _refusal(503)
        if path in _PUSHES and self._clients.refuses(key, size):
            return _refusal(413)
        return None


class FleetServer(uvicorn.Server):
    """uvicorn before a gate. It lets go of the polls that are held before it waits for what is open."""

    def __init__(self, config: uvicorn.Config, clients: Clients) -> None:
        super().__init__(config)
        self._clients = clients

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: what is held is refused at once."""
        self._clients.close()
        await super().shutdown(sockets)


def _key(scope: Any) -> bytes:
    """The node's key as a request names it; a name that is none is left to Flower, which refuses it.

    Of several names it is the first, as it is for Flower: whose signature is checked is who is counted.
    """
    named = next((text for name, text in scope["headers"] if name == _KEY_HEADER), b"")
    try:
        return base64.b64decode(named, validate=True)
    except ValueError:
        return b""


def _counts(path: str, status: int) -> bool:
    """Whether what a request brought counts for its key.

    A message that Flower fails over has cost the database more than one that it takes. An object that fails does not
    count: an honest client sends it again when the server's disk is full, and one of 8 MB would use up the quota.
    """
    return (path in _PUSHES and status in _KNOWN) or (path == _PUSH_MESSAGES and status >= 500)


def _refusal(status: int) -> list[Any]:
    start = {"type": "http.response.start", "status": status, "headers": [(b"connection", b"close")]}
    return [start, {"type": "http.response.body", "body": b""}]


async def _refuse(send: Send, status: int) -> None:
    for event in _refusal(status):
        await send(event)
