"""The gate on the public port: Flower's fleet paths and health, one request at a time, bounded in size and time."""

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import uvicorn

from confide.server.fleet.client_limits import MAX_BODY, Clients
from confide.server.fleet.request_bodies import SMALL_BODY, Bodies, BodyRefusedError, PeerGoneError, Receive

# The exact paths that our client calls. get-fab, which hands out code, is not among them. Neither are get-run and the
# Control and Runtime APIs.
_NAMES = "activate-node deactivate-node send-node-heartbeat pull-messages push-messages pull-object push-object"
FLEET_PATHS = frozenset(f"/v1/fleet/{name}" for name in _NAMES.split())
_PUSH_MESSAGES, _PUSH_OBJECT = "/v1/fleet/push-messages", "/v1/fleet/push-object"
_PUSHES = (_PUSH_MESSAGES, _PUSH_OBJECT)
_PULL = "/v1/fleet/pull-messages"
_HEARTBEAT = "/v1/fleet/send-node-heartbeat"
_KEY_HEADER = b"flwr-public-key"
_MAX_HEAD = 2**14  # bytes; our client's head is a kilobyte
_KNOWN = (200, 403)  # Flower's answers after a signature check; 403 means that the run is over

Send = Callable[[Any], Awaitable[None]]


class ServerEndsError(RuntimeError):
    """The server ends: no turn is given any more."""


class DatabaseTurn:
    """The turn at the database, shared by fleet requests (in the event loop) and the run (in a thread).

    Flower's SQLite transactions begin as readers and become writers. Two together fail at once with "database is
    locked", whatever the timeout, and the client sees HTTP 500 (it happened with 50 clients).
    """

    def __init__(self) -> None:
        self.semaphore = asyncio.Semaphore(1)
        self.loop: asyncio.AbstractEventLoop | None = None  # set when the server starts
        self.closed = False

    def close(self) -> None:
        """Give no more turns to threads: a round that waits for its institutions ends with `ServerEndsError`."""
        self.closed = True

    @contextlib.contextmanager
    def from_thread(self) -> Iterator[None]:
        """Hold the turn in a thread other than the event loop's."""
        if self.closed:
            raise ServerEndsError("the server ends")
        if self.loop is None:
            raise RuntimeError("the server has not started")
        asyncio.run_coroutine_threadsafe(self.semaphore.acquire(), self.loop).result()
        try:
            yield
        finally:
            self.loop.call_soon_threadsafe(self.semaphore.release)

    def before_the_next(self, act: Callable[[int], None], node_id: int) -> None:
        """Let the event loop act on a node. If the calling thread holds the turn, this is before the next turn."""
        if self.loop is None:
            raise RuntimeError("the server has not started")
        self.loop.call_soon_threadsafe(act, node_id)


class FleetGate:
    """The ASGI application around Flower's: a list of paths, bounds on bodies, one request at a time.

    A slow peer delays only itself: the gate reads a request before its turn and sends the answer after it. A client
    with nothing to pull waits outside the turn. So it need not ask often, and an empty pull costs Flower 9 ms.
    """

    def __init__(self, app: Any, turn: DatabaseTurn, clients: Clients) -> None:
        self._app, self._turn, self._clients, self._bodies = app, turn, clients, Bodies()
        self._line, self._beating = asyncio.Semaphore(1), set[bytes]()  # keys; see `_our_turn`

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's start and end."""
        if scope["type"] == "lifespan":
            self._turn.loop = asyncio.get_running_loop()
            await self._app(scope, receive, send)
        elif scope.get("path") == "/health":
            await self._app(scope, receive, send)
        elif scope["type"] != "http" or scope["path"] not in FLEET_PATHS:
            await _refuse(send, 404)
        elif sum(len(name) + len(text) for name, text in scope["headers"]) > _MAX_HEAD:
            await _refuse(send, 431)  # h11 bounds only heads that come in pieces
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
        after = asyncio.ensure_future(receive())  # after the body only "http.disconnect" comes
        try:
            if scope["path"] == _PULL:
                # Wait first, then ask Flower once. Asking it before and after would cost an extra empty pull, which is
                # all that the wait saves. A signature is good for 300 s; Flower refuses a bad one after the wait.
                await self._clients.wait_for_ask(_key(scope), after)
            return await self._hand_on(scope, body, after)
        finally:
            after.cancel()

    async def _hand_on(self, scope: Any, body: bytes, after: "asyncio.Future[Any]") -> list[Any]:
        """Return Flower's answer to a whole request, or ours if it must not reach Flower."""
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
        """Hold the turn. Only the run, one heartbeat of each client and one other request wait for it at a time.

        Flower's client waits 5 s for a heartbeat. Behind the requests of 50 clients on a busy machine it took longer,
        so heartbeats skip the line. Any peer can send one, so without a bound strangers' would starve all the rest.
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
        """Return our answer instead of Flower's; None if Flower should answer."""
        if after.done() and after.result()["type"] == "http.disconnect":
            return []  # Flower hands out each ask once, so a client that left while it waited must not pull one
        if path == _PULL and self._clients.closed:
            return _refusal(503)
        if path in _PUSHES and self._clients.refuses(key, size):
            return _refusal(413)
        return None


class PortServer(uvicorn.Server):
    """A uvicorn server that leaves signals to the process.

    Uvicorn raises the signal that ended it once more. That would kill the process before its worker has ended.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class FleetServer(PortServer):
    """The uvicorn server of a gate. At its end it releases held polls before it waits for open connections."""

    def __init__(self, config: uvicorn.Config, clients: Clients) -> None:
        super().__init__(config)
        self._clients = clients

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down, and refuse held polls at once."""
        self._clients.close()
        await super().shutdown(sockets)


def _key(scope: Any) -> bytes:
    """Return the node's key that a request names. An invalid name gives an empty key; Flower refuses the request.

    Of several names the first counts, as it does for Flower. So the counted key is the one whose signature is checked.
    """
    named = next((text for name, text in scope["headers"] if name == _KEY_HEADER), b"")
    try:
        return base64.b64decode(named, validate=True)
    except ValueError:
        return b""


def _counts(path: str, status: int) -> bool:
    """Return whether the bytes of a request count for its key.

    A message over which Flower fails counts, for it cost the database more than one that Flower accepts. A failed
    object does not count: an honest client sends it again after a full disk, and one of 8 MB would use up the quota.
    """
    return (path in _PUSHES and status in _KNOWN) or (path == _PUSH_MESSAGES and status >= 500)


def _refusal(status: int) -> list[Any]:
    start = {"type": "http.response.start", "status": status, "headers": [(b"connection", b"close")]}
    return [start, {"type": "http.response.body", "body": b""}]


async def _refuse(send: Send, status: int) -> None:
    for event in _refusal(status):
        await send(event)
