"""Bodies of requests: each bounded in size and time, and all that are in memory together: anybody can send one."""

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from confide.server.fleet.client_limits import MAX_BODY

# Of every request but one that brings an object, and all that a stranger may send: an honest one is 1 KB. In 8 MB one
# `push-messages` could announce a hundred thousand objects, and Flower would hold the database for all of them.
SMALL_BODY = 8 * 2**10
MOST_HELD = 32 * MAX_BODY  # bytes of larger bodies in memory at a time
MOST_OF_A_KEY = 2 * MAX_BODY  # of these: anybody can name another's key, and it must not cost all others their places
_BODY_SECONDS = 60  # until a request must be all here

Receive = Callable[[], Awaitable[Any]]


class BodyRefusedError(Exception):
    """A body that is too large (413), too slow (408), or one too many at a time (503: our client tries again)."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class PeerGoneError(Exception):
    """The peer went away; half a request is never acted on."""


class Bodies:
    """All bodies that are being read or worked on."""

    def __init__(self) -> None:
        self._held = Counter[bytes]()  # bytes, by the key that was named

    @asynccontextmanager
    async def read(self, scope: Any, receive: Receive, key: bytes, most: int) -> AsyncIterator[bytes]:
        """A whole body of at most so many bytes, in a key's name; it counts until the block ends.

        Raises:
            BodyRefusedError: see there.
            PeerGoneError: see there.
        """
        body = io.BytesIO()  # however small the chunks are that it comes in, and its value is no copy
        try:
            if int(dict(scope["headers"]).get(b"content-length", 0)) > most:  # h11 refuses all but digits
                raise BodyRefusedError(413)
            yield await self._read_in_time(receive, key, most, body)
        finally:
            self._held[key] -= _counted(body.tell())
            if not self._held[key]:  # strangers' keys have no end
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
        """Whether there is more to come."""
        event = await receive()
        if event["type"] == "http.disconnect":
            raise PeerGoneError
        size = body.tell() + len(event.get("body", b""))
        if size > most:  # it came in chunks, without a length
            raise BodyRefusedError(413)
        more = _counted(size) - _counted(body.tell())
        if self._held[key] + more > MOST_OF_A_KEY or self._held.total() + more > MOST_HELD:
            raise BodyRefusedError(503)
        self._held[key] += more
        body.write(event.get("body", b""))
        return bool(event.get("more_body"))


def _counted(size: int) -> int:
    """What a body of this size counts for in memory: small ones go on while large ones are refused."""
    return max(0, size - SMALL_BODY)
