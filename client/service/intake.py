"""A bound on the bytes that a client takes from the server, counted before they are in memory."""

import ssl
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import httpx

# Of one message with all its parts. The largest that a server of ours sends is a finished adapter: some 100 MB if the
# update of a round fills the 8 MB that such a server takes.
MAX_BYTES = 256 * 2**20
MAX_PARTS = 16  # of one message; an ask has four: itself, its content, two records
_MAX_ELSE = 2**20  # of every other answer; an honest one is some kilobytes
_KEEP_OPEN = 30.0  # seconds that a quiet TLS connection stays open: longer than any two polls are apart
_PART = "/pull-object"  # the end of the path of a request for a part

Part = TypeVar("Part")


class TooMuchError(httpx.TransportError):
    """An answer that is larger than any honest one, or would show its size only when it is unpacked."""


class Intake:
    """The bytes that may still come in: for the message whose parts are being fetched, and for any other answer."""

    def __init__(self) -> None:
        self._message = _Allowance(MAX_BYTES)

    def client(self, verify: ssl.SSLContext) -> httpx.Client:
        """Return an HTTP client that counts every answer and follows no redirect.

        Only the server that was joined may see the signed requests. Connections outlive a heartbeat: httpx would close
        them after 5 s, and each heartbeat would need a TLS handshake of its own.
        """
        return httpx.Client(
            verify=verify,
            timeout=30.0,
            limits=httpx.Limits(keepalive_expiry=_KEEP_OPEN),
            headers={"accept-encoding": "identity"},
            event_hooks={"response": [self._count]},
        )

    def begin(self, parts: Iterable[Part]) -> list[Part]:
        """Return the parts of the next message, and let them come from here on; `TooMuchError` if they are too many."""
        few = list(islice(parts, MAX_PARTS + 1))
        if len(few) > MAX_PARTS:
            raise TooMuchError(f"more than {MAX_PARTS} parts")
        self._message = _Allowance(MAX_BYTES)
        return few

    def _count(self, response: httpx.Response) -> None:
        """Bound an answer before the first byte of its body is read."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise TooMuchError("an answer that is packed, though none was asked for")
        is_part = response.request.url.path.endswith(_PART)
        allowance = self._message if is_part else _Allowance(_MAX_ELSE)
        allowance.require(response.headers.get("content-length", "0"))
        response.stream = _Counted(response.stream, allowance)


class _Allowance:
    """Bytes that may still come."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def require(self, announced: str) -> None:
        """Raise `TooMuchError` if an announced length is too much."""
        if not announced.isdecimal() or len(announced) > 18 or int(announced) > self._left:
            raise TooMuchError(f"more than {self._most:,} bytes announced")

    def take(self, size: int) -> None:
        """Count received bytes; raise `TooMuchError` if more have come than may."""
        self._left -= size
        if self._left < 0:
            raise TooMuchError(f"more than {self._most:,} bytes")


class _Counted(httpx.SyncByteStream):
    """A body that ends in an error as soon as it is too long, even if it announced a smaller length."""

    def __init__(self, body: object, allowance: _Allowance) -> None:
        self._body: httpx.SyncByteStream = body  # type: ignore[assignment]  # httpx has one class for both kinds
        self._allowance = allowance

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._body:
            self._allowance.take(len(chunk))
            yield chunk

    def close(self) -> None:
        """Close the body, too."""
        self._body.close()
