"""Bodies of requests: each bounded in size and time, and all that are in memory together: anybody can send one."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from confide.server.clients import MAX_BODY

SMALL_BODY = 64 * 2**10  # what a stranger may send: all that it may ask for is to be let in
MOST_HELD = 32 * MAX_BODY  # bytes of larger bodies in memory at a time: anybody can name another's key
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
        self._held = 0  # bytes

    @asynccontextmanager
    async def read(self, scope: Any, receive: Receive, most: int) -> AsyncIterator[bytes]:
        """A whole body of at most so many bytes; it counts until the block ends.

        Raises:
            BodyRefusedError: see there.
            PeerGoneError: see there.
        """
        body = io.BytesIO()  # however small the chunks are that it comes in, and its value is no copy
        try:
            yield await self._read_in_time(scope, receive, most, body)
        finally:
            self._held -= _counted(body.tell())

    async def _read_in_time(self, scope: Any, receive: Receive, most: int, body: io.BytesIO) -> bytes:
        if int(dict(scope["headers"]).get(b"content-length", 0)) > most:  # h11 lets nothing but digits through
            raise BodyRefusedError(413)
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while await self._read_some(receive, most, body):
                    pass
        except TimeoutError:
            raise BodyRefusedError(408) from None
        return body.getvalue()

    async def _read_some(self, receive: Receive, most: int, body: io.BytesIO) -> bool:
        """Whether there is more to come."""
        event = await receive()
        if event["type"] == "http.disconnect":
            raise PeerGoneError
        size = body.tell() + len(event.get("body", b""))
        if size > most:  # it came in chunks, without a length
            raise BodyRefusedError(413)
        more = _counted(size) - _counted(body.tell())
        if self._held + more > MOST_HELD:
            raise BodyRefusedError(503)
        self._held += more
        body.write(event.get("body", b""))
        return bool(event.get("more_body"))


def _counted(size: int) -> int:
    """What a body of this size counts for in memory: small ones go on while large ones are refused."""
    return max(0, size - SMALL_BODY)
