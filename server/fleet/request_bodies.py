"""Bodies of requests. Any peer can send one, so each is bounded in size and time, and all together in memory."""

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from confide.server.fleet.client_limits import MAX_BODY

# The bound for every request without an object, and for strangers; an honest one is 1 KB. In 8 MB one `push-messages`
# could announce a hundred thousand objects, and Flower would hold the database for all of them.
SMALL_BODY = 8 * 2**10
MAX_HELD = 32 * MAX_BODY  # bytes of larger bodies in memory at a time
MAX_OF_A_KEY = 2 * MAX_BODY  # bytes of these for one key: a peer that names another's key must not take all places
_BODY_SECONDS = 60  # until a whole request must be here

Receive = Callable[[], Awaitable[Any]]


class BodyRefusedError(Exception):
    """A body that is too large (413), too slow (408), or over the memory bound (503: our client tries again)."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class PeerGoneError(Exception):
    """The peer went away. The server never acts on half a request."""


class Bodies:
    """All bodies that the server is reading or working on."""

    def __init__(self) -> None:
        self._held = Counter[bytes]()  # bytes by named key

    @asynccontextmanager
    async def read(self, scope: Any, receive: Receive, key: bytes, most: int) -> AsyncIterator[bytes]:
        """Read a whole body of at most ``most`` bytes. It counts for ``key`` until the block ends.

        Raises:
            BodyRefusedError: the body is too large, too slow, or over the memory bound.
            PeerGoneError: the peer went away.
        """
        body = io.BytesIO()  # cheap for chunks of any size, and its value is no copy
        try:
            if int(dict(scope["headers"]).get(b"content-length", 0)) > most:  # h11 refuses all but digits
                raise BodyRefusedError(413)
            yield await self._read_in_time(receive, key, most, body)
        finally:
            self._held[key] -= _counted(body.tell())
            if not self._held[key]:  # the number of strangers' keys has no bound
                del self._held[key]

    async def _read_in_time(self, receive: Receive, key: bytes, most: int, body: io.BytesIO) -> bytes:
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while await self._read_some(receive, key, most, body):
                    pass
        except TimeoutError:
            raise BodyRefusedError(408) from None
        return body.getvalue()

    async def _read_some(self, receive: Receive, key: bytes, most: int, body: io.BytesIO) -> bool:
        """Read a chunk. Return whether there is more to come."""
        event = await receive()
        if event["type"] == "http.disconnect":
            raise PeerGoneError
        size = body.tell() + len(event.get("body", b""))
        if size > most:  # a body in chunks has no length header
            raise BodyRefusedError(413)
        more = _counted(size) - _counted(body.tell())
        if self._held[key] + more > MAX_OF_A_KEY or self._held.total() + more > MAX_HELD:
            raise BodyRefusedError(503)
        self._held[key] += more
        body.write(event.get("body", b""))
        return bool(event.get("more_body"))


def _counted(size: int) -> int:
    """Return the bytes that count for a body of this size. Small ones pass even while large ones are refused."""
    return max(0, size - SMALL_BODY)
