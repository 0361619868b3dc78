"""What the public port serves: Flower's fleet paths and health, one request at a time, none large, none without end."""

import asyncio
import base64
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

MAX_BODY = 8 * 2**20  # of one request, and of one whole reply
QUOTA = 4 * MAX_BODY  # bytes that a client may push for one ask: its answer, and again from the start after trouble
SMALL_BODY = 64 * 2**10  # what a stranger may send: all that it may ask for is to be let in
MOST_HELD = 32 * MAX_BODY  # bytes of larger bodies in memory at a time: anybody can name another's key
_BODY_SECONDS = 60  # until a request must be all here
# Exact paths. get-fab, which hands out code, is not among them, nor are the Control and Runtime APIs.
_NAMES = (
    "activate-node deactivate-node send-node-heartbeat pull-messages push-messages pull-object push-object "
    "confirm-message-received get-run"
)
FLEET_PATHS = frozenset(f"/v1/fleet/{name}" for name in _NAMES.split())
_PUSHES = ("/v1/fleet/push-messages", "/v1/fleet/push-object")
_KEY_HEADER = b"flwr-public-key"
_KNOWN = (200, 403)  # Flower's answers after it has checked the signature; 403: the run is over

log = logging.getLogger("confide")

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Turn:
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


class Quota:
    """What each client has pushed since it was last asked. All methods belong to whoever holds the turn.

    A request names its key, and anybody can name another's: so bytes count once Flower has checked the signature.
    """

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}  # of the approved institutions, by node key
        self._keys: dict[int, bytes] = {}  # by node
        self._pushed: dict[bytes, int] = {}
        self._told: set[bytes] = set()

    def admit(self, node_id: int, key: bytes, name: str) -> None:
        """A client is approved."""
        self._names[key], self._keys[node_id] = name, key

    def knows(self, key: bytes) -> bool:
        """Whether the key was approved, whoever shows it; may be asked at any time."""
        return key in self._names

    def renew(self, node_id: int) -> None:
        """A client is asked: it may push again."""
        key = self._keys.get(node_id, b"")
        self._pushed.pop(key, None)
        self._told.discard(key)

    def count(self, key: bytes, size: int) -> None:
        """A client, which Flower knows, has pushed so many bytes."""
        self._pushed[key] = self._pushed.get(key, 0) + size

    def refuses(self, key: bytes, size: int) -> bool:
        """Whether so many more would be too many; the first time after an ask it is logged."""
        if self._pushed.get(key, 0) + size <= QUOTA:
            return False
        if key not in self._told:
            self._told.add(key)
            name = self._names.get(key, "a client")
            log.warning("%s pushed %d bytes for one ask and is refused until it is asked again", name, QUOTA)
        return True


class _GoneError(Exception):
    """The peer went away; half a request is never acted on."""


class _Body:
    """One body on its way in; ``size`` stays after it was taken."""

    def __init__(self, most: int) -> None:
        self.most, self.size, self._chunks = most, 0, list[bytes]()

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._chunks.append(chunk)

    def take(self) -> bytes:
        """All of it, once: a copy would be twice the memory."""
        content = b"".join(self._chunks)
        self._chunks.clear()
        return content


class FleetGate:
    """ASGI application around Flower's: a list of paths, bounds on bodies, one request at a time.

    A slow peer waits for itself: a request is read before its turn, and the answer is sent after it.
    """

    def __init__(self, app: Any, turn: Turn, quota: Quota) -> None:
        self._app, self._turn, self._quota = app, turn, quota
        self._held = 0  # bytes, of all requests that are being read or wait for their turn

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's start and end."""
        if scope["type"] == "lifespan":
            self._turn.loop = asyncio.get_running_loop()
            await self._app(scope, receive, send)
        elif scope.get("path") == "/health":
            await self._app(scope, receive, send)
        elif scope["type"] != "http" or scope["path"] not in FLEET_PATHS:
            await _refuse(send, 404)
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Any, receive: Receive, send: Send) -> None:
        body = _Body(MAX_BODY if self._quota.knows(_key(scope)) else SMALL_BODY)
        try:
            refused = await self._read(body, scope, receive)
            answer = _refusal(refused) if refused else await self._hand_on(scope, body.take(), receive)
        except _GoneError:
            return
        finally:
            self._held -= _counted(body.size)
        for event in answer:
            await send(event)

    async def _read(self, body: "_Body", scope: Any, receive: Receive) -> int | None:
        """Read a whole body; the status of a refusal if it is too large, too slow, or one too many at a time."""
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                return await self._read_on(body, scope, receive)
        except TimeoutError:
            return 408

    async def _read_on(self, body: "_Body", scope: Any, receive: Receive) -> int | None:
        if int(dict(scope["headers"]).get(b"content-length", 0)) > body.most:  # h11 lets nothing but digits through
            return 413
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise _GoneError
            chunk = event.get("body", b"")
            if body.size + len(chunk) > body.most:  # it came in chunks, without a length
                return 413
            more = _counted(body.size + len(chunk)) - _counted(body.size)
            if self._held + more > MOST_HELD:
                return 503  # our client waits, and tries again
            self._held += more
            body.add(chunk)
            if not event.get("more_body"):
                return None

    async def _hand_on(self, scope: Any, body: bytes, receive: Receive) -> list[Any]:
        """Flower's answer to a whole request, or ours where its client has pushed too much."""
        unread = [{"type": "http.request", "body": body, "more_body": False}]
        answer: list[Any] = []

        async def replay() -> Any:
            return unread.pop() if unread else await receive()  # then nothing but "http.disconnect" comes

        async def collect(event: Any) -> None:
            answer.append(event)

        size, key = len(body) if scope["path"] in _PUSHES else 0, _key(scope)
        async with self._turn.semaphore:
            if self._quota.refuses(key, size):
                return _refusal(413)
            await self._app(scope, replay, collect)
            if answer and answer[0]["status"] in _KNOWN:
                self._quota.count(key, size)
        return answer


def _key(scope: Any) -> bytes:
    """The node's key as a request names it; a name that is none is left to Flower, which refuses it."""
    try:
        return base64.b64decode(dict(scope["headers"]).get(_KEY_HEADER, b""), validate=True)
    except ValueError:
        return b""


def _counted(size: int) -> int:
    """What a body of this size counts for in memory: small ones go on while large ones are refused."""
    return max(0, size - SMALL_BODY)


def _refusal(status: int) -> list[Any]:
    start = {"type": "http.response.start", "status": status, "headers": [(b"connection", b"close")]}
    return [start, {"type": "http.response.body", "body": b""}]


async def _refuse(send: Send, status: int) -> None:
    for event in _refusal(status):
        await send(event)
