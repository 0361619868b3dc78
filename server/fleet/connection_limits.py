"""Connections to the server, before anybody is known: how many, how many of one peer, how long without a request."""

import asyncio
import ipaddress
import resource
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# A client has two: while its poll is held on one, its heartbeat takes another. So many take 550 MB, whoever they are:
# asyncio has a buffer of 256 KB for each over TLS.
MOST_CONNECTIONS = 2000
_PEER_SHARE = 4  # a quarter of them is one peer's: many institutions may call through one proxy, and it is 250 clients
_REQUEST_SECONDS = 20.0  # for the head of a request, which is a kilobyte


class Connection(H11Protocol):
    """A connection that ends where no request comes in time.

    uvicorn's own timer runs between an answer and the next byte alone, so a peer that sends nothing at first, or one
    byte in a minute, would stay for ever. And it is h11, not httptools, which keeps headers without end: h11 refuses a
    head of more than 16 KB that comes in pieces, and the gate one that comes at once.
    """

    _impatience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; over TLS after the handshake, for which asyncio gives a peer 60 s."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._watch()

    def _watch(self) -> None:
        """The timer runs on whatever comes, until a request is here: bytes that trickle do not renew it."""
        at_work = self.cycle is not None and not self.cycle.response_complete  # bodies.py has the time of its body
        between = self.timeout_keep_alive_task is not None
        if at_work or between or self.transport.is_closing():
            if self._impatience is not None:
                self._impatience.cancel()
            self._impatience = None
        elif self._impatience is None:
            self._impatience = self.loop.call_later(_REQUEST_SECONDS, self.transport.abort)


class LimitedListener(socket.socket):
    """A listening socket that hangs up on a connection too many.

    It counts from accept to close. uvicorn's `limit_concurrency` sees a connection after its TLS handshake, and answers
    a request too many, but lets connections stay.
    """

    def __init__(self, listening: socket.socket, most: int) -> None:
        super().__init__(fileno=listening.detach())
        self._most, self._open = most, Counter[str]()

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection; one too many is an aborted one, which asyncio passes over."""
        plain, address = super().accept()
        peer = _peer(address[0])
        if self._open.total() >= self._most or self._open[peer] >= max(1, self._most // _PEER_SHARE):
            plain.close()
            raise ConnectionAbortedError
        self._open[peer] += 1
        return _Accepted(plain, lambda: self._leave(peer)), address

    def _leave(self, peer: str) -> None:
        self._open[peer] -= 1
        if not self._open[peer]:  # addresses have no end
            del self._open[peer]


class _Accepted(socket.socket):
    """A connection that tells when it is closed."""

    def __init__(self, plain: socket.socket, left: Callable[[], None]) -> None:
        super().__init__(plain.family, plain.type, plain.proto, fileno=plain.detach())
        self._left: Callable[[], None] | None = left

    def close(self) -> None:
        """Close, and tell once."""
        super().close()
        if self._left is not None:
            self._left()
        self._left = None


def most_connections() -> int:
    """How many may be open at a time, once the process may have as many files as it can get.

    A quarter of the files is for everything else: a checkpoint that finds none free ends a run. Outside systemd the
    limit is often 1024 at first.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 4 * MOST_CONNECTIONS // 3 + 1
    if soft != resource.RLIM_INFINITY and soft < enough:
        soft = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, 3 * soft // 4)


def _peer(address: str) -> str:
    """Who is counted as one: an IPv4 address, or an IPv6 network of 64 bits, all of which is one machine's to use.

    >>> _peer("203.0.113.7") == _peer("::ffff:203.0.113.7"), _peer("2001:db8::1"), _peer("2001:db8::2:1")
    (True, '2001:db8::/64', '2001:db8::/64')
    """
    given = ipaddress.ip_address(address)
    given = getattr(given, "ipv4_mapped", None) or given  # a socket that takes both kinds shows the one as the other
    return str(given) if given.version == 4 else str(ipaddress.ip_network((int(given) >> 64 << 64, 64)))
