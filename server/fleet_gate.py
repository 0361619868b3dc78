"""What the public port serves: Flower's fleet paths and health, one request at a time, none of them large."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

MAX_BODY = 8 * 2**20  # of one request, and of one whole reply
_BODY_SECONDS = 60  # until a request must be all here
# Exact paths. get-fab, which hands out code, is not among them, nor are the Control and Runtime APIs.
_NAMES = (
    "activate-node deactivate-node send-node-heartbeat pull-messages push-messages pull-object push-object "
    "confirm-message-received get-run"
)
FLEET_PATHS = frozenset(f"/v1/fleet/{name}" for name in _NAMES.split())

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


class FleetGate:
    """ASGI application around Flower's: a list of paths, a bound on bodies, one request at a time.

    A slow peer waits for itself: a request is read before its turn, and the answer is sent after it.
    """

    def __init__(self, app: Any, turn: Turn) -> None:
        self._app, self._turn = app, turn

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
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await _read_body(scope, receive)
        except TimeoutError:
            await _refuse(send, 408)
            return
        except ConnectionError:
            return
        if body is None:
            await _refuse(send, 413)
            return
        unread = [{"type": "http.request", "body": body, "more_body": False}]
        answer: list[Any] = []

        async def replay() -> Any:
            return unread.pop() if unread else await receive()  # then nothing but "http.disconnect" comes

        async def collect(event: Any) -> None:
            answer.append(event)

        async with self._turn.semaphore:
            await self._app(scope, replay, collect)
        for event in answer:
            await send(event)


async def _read_body(scope: Any, receive: Receive) -> bytes | None:
    """The whole body; None if it is too large, also when it comes in chunks without a length.

    Raises:
        ConnectionError: the peer went away; half a request is never acted on.
    """
    if int(dict(scope["headers"]).get(b"content-length", 0)) > MAX_BODY:  # h11 lets nothing but digits through
        return None
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ConnectionError
        body += event.get("body", b"")
        if len(body) > MAX_BODY:
            return None
        if not event.get("more_body"):
            return bytes(body)


async def _refuse(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": b""})
