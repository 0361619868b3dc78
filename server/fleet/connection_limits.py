"""Limits on connections from unknown peers: the total, the share of one peer, the time without a request."""

import asyncio
import ipaddress
import resource
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# A client has two: while the server holds its poll on one, its heartbeat takes another. 2,000 connections of any peers
# take 550 MB, because asyncio keeps a TLS buffer of 256 KB for each.
MAX_CONNECTIONS = 2000
_PEER_SHARE = 4  # one peer may have a quarter (250 clients), since many institutions may call through one proxy
_REQUEST_SECONDS = 20.0  # for the head of a request, about one kilobyte


class Connection(H11Protocol):
    """A connection that ends if no request comes in time.

    uvicorn's own timer runs only between an answer and the next byte. A peer that sends nothing at first, or one byte
    in a minute, would stay for ever. The parser is h11, because httptools keeps headers without end: h11 refuses a
    head of more than 16 KB that comes in pieces, and the gate refuses one that comes at once.
    """

    _impatience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer. Over TLS this is after the handshake, for which asyncio gives a peer 60 s."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take in received bytes."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        super().connection_lost(exc)
        self._watch()

    def _watch(self) -> None:
        """Run the timer until a whole request head is here. Bytes that trickle in do not renew it."""
        at_work = self.cycle is not None and not self.cycle.response_complete  # request_bodies.py limits its body
        between = self.timeout_keep_alive_task is not None
        if at_work or between or self.transport.is_closing():
            if self._impatience is not None:
                self._impatience.cancel()
            self._impatience = None
        elif self._impatience is None:
            self._impatience = self.loop.call_later(_REQUEST_SECONDS, self.transport.abort)


class LimitedListener(socket.socket):
    """A listening socket that closes each connection over the limit.

    It counts from accept to close. uvicorn's `limit_concurrency` sees a connection only after its TLS handshake. It
    refuses excess requests, but lets their connections stay.
    """

    def __init__(self, listening: socket.socket, most: int) -> None:
        super().__init__(fileno=listening.detach())
        self._most, self._open = most, Counter[str]()

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection. One over the limit raises an abort, which asyncio ignores."""
        plain, address = super().accept()
        peer = _peer(address[0])
        if self._open.total() >= self._most or self._open[peer] >= max(1, self._most // _PEER_SHARE):
            plain.close()
            raise ConnectionAbortedError
        self._open[peer] += 1
        return _Accepted(plain, lambda: self._leave(peer)), address

    def _leave(self, peer: str) -> None:
        self._open[peer] -= 1
        if not self._open[peer]:  # the number of addresses has no bound
            del self._open[peer]


class _Accepted(socket.socket):
    """A connection that reports its close."""

    def __init__(self, plain: socket.socket, left: Callable[[], None]) -> None:
        super().__init__(plain.family, plain.type, plain.proto, fileno=plain.detach())
        self._left: Callable[[], None] | None = left

    def close(self) -> None:
        """Close, and report it once."""
        super().close()
        if self._left is not None:
            self._left()
        self._left = None


def most_connections() -> int:
    """Raise the process's limit of open files, and return how many connections may be open at a time.

    A quarter of the files stays free for everything else, since a checkpoint that finds none free ends a run. Outside
    systemd the limit is often 1024 at first.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 4 * MAX_CONNECTIONS // 3 + 1
    if soft != resource.RLIM_INFINITY and soft < enough:
        soft = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, 3 * soft // 4)


def _peer(address: str) -> str:
    """Return the unit that counts as one peer: an IPv4 address, or an IPv6 /64, which one machine may own in full.

    >>> _peer("203.0.113.7") == _peer("::ffff:203.0.113.7"), _peer("2001:db8::1"), _peer("2001:db8::2:1")
    (True, '2001:db8::/64', '2001:db8::/64')
    """
    given = ipaddress.ip_address(address)
    given = getattr(given, "ipv4_mapped", None) or given  # a dual-stack socket shows IPv4 addresses as IPv6 ones
    return str(given) if given.version == 4 else str(ipaddress.ip_network((int(given) >> 64 << 64, 64)))
