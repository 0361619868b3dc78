"""The public port before a request is there: heads without end, silence, more connections than there is room for."""

import asyncio
import contextlib
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from confide.server.fleet import connection_limits
from confide.server.fleet.connection_limits import MAX_CONNECTIONS, Connection, LimitedListener, most_connections
from confide.server.home.home import init_home

_ENOUGH = 2**25  # more than the buffers of two sockets, and far more than any head
_WAIT = 10.0  # for a server to hang up
ASK = b"POST / HTTP/1.1\r\nhost: a\r\n"


class _Server:
    """uvicorn with our connections, behind a door, before an application that reads a body and says how long it is."""

    def __init__(self, most: int = 100, **settings: Any) -> None:
        self.door = LimitedListener(socket.create_server(("127.0.0.1", 0)), most)
        self.address = self.door.getsockname()
        common: Any = {"http": Connection, "timeout_keep_alive": 75, "timeout_graceful_shutdown": 1, "lifespan": "off"}
        common |= {"ws": "none", "log_config": None, "interface": "asgi3"}
        self.uvicorn = uvicorn.Server(uvicorn.Config(self._serve, **common, **settings))
        self.thread = threading.Thread(target=lambda: asyncio.run(self.uvicorn.serve([self.door])), daemon=True)
        self.reached, self.seconds = 0, 0.0
        self.thread.start()
        while not self.uvicorn.started:
            assert self.thread.is_alive()
            time.sleep(0.01)

    async def _serve(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        self.reached += 1
        size, more = 0, scope["method"] != "PUT"  # a PUT is answered at once
        while more:
            event = await receive()
            size, more = size + len(event.get("body", b"")), event.get("more_body", False)
        await asyncio.sleep(self.seconds)
        body = b"%d" % size
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    def call(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(self.address, timeout=_WAIT, source_address=(source, 0))

    def close(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join(timeout=_WAIT)


@pytest.fixture
def server() -> Iterator[_Server]:
    made = _Server()
    yield made
    made.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setattr(connection_limits, "_REQUEST_SECONDS", 0.5)
    made = _Server()
    yield made
    made.close()


def _hung_up(peer: socket.socket) -> bool:
    """Whether the server ends a connection; what it says before is thrown away."""
    try:
        while peer.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def _answer(peer: socket.socket) -> bytes:
    """One answer, with its body and without a byte of the next: they come in as many pieces as the network likes."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += (byte := peer.recv(1))
        assert byte, head
    sizes = [line.partition(b":")[2] for line in head.splitlines() if line.startswith(b"content-length:")]
    for _ in range(sum(map(int, sizes))):
        assert peer.recv(1)
    return head


@pytest.mark.parametrize(
    ("begin", "goes_on"),
    [
        (ASK, b"aa01:bb\r\n" * 1000),
        (ASK + b"aa01:", b"b" * 2**14),
        (b"GET /", b"a" * 2**14),
        (b"A", b"A" * 2**14),
        (ASK + b"transfer-encoding: chunked\r\n\r\n1;", b"a" * 2**14),
        (ASK + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"aa01:bb\r\n" * 1000),
    ],
    ids=["headers", "a header", "an address", "a method", "a chunk's size", "trailers"],
)
def test_what_has_no_end_is_cut_off_and_others_are_served(server: _Server, begin: bytes, goes_on: bytes) -> None:
    sent = 0
    with server.call() as peer, contextlib.suppress(ConnectionError):
        peer.sendall(begin)
        while sent < _ENOUGH:
            peer.sendall(goes_on)
            sent += len(goes_on)
    assert sent < _ENOUGH, "the server went on reading"
    with server.call() as other:
        other.sendall(ASK + b"content-length: 3\r\n\r\nabc")
        assert _answer(other).startswith(b"HTTP/1.1 200")


def test_an_honest_head_may_be_many_times_as_large_as_flower_s(server: _Server) -> None:
    with server.call() as peer:
        peer.sendall(ASK + b"flwr-signature: " + b"x" * 8000 + b"\r\ncontent-length: 0\r\n\r\n")
        assert _answer(peer).startswith(b"HTTP/1.1 200")


def test_who_waits_for_leave_to_send_gets_it(server: _Server) -> None:
    with server.call() as peer:
        peer.sendall(ASK + b"expect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        assert _answer(peer).startswith(b"HTTP/1.1 100")
        peer.sendall(b"abc")
        assert _answer(peer).startswith(b"HTTP/1.1 200")


_WHOLE = ASK + b"content-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b""),
        (ASK, b""),
        (ASK, b"a"),
        (_WHOLE, b"P"),
        (_WHOLE, b"POST / HTTP/1.1\r\na:"),
        (b"PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n", b"x"),
    ],
    ids=["nothing", "half a head", "a head in drops", "half a second one", "a second in drops", "an answered body"],
)
def test_a_connection_without_a_whole_request_ends(hasty: _Server, first: bytes, then: bytes) -> None:
    """uvicorn's own timer (75 s here) begins with an answer, and ends with the next byte."""
    with hasty.call() as peer:
        peer.sendall(first)
        peer.settimeout(0.1)
        end = time.monotonic() + _WAIT
        while not _hung_up(peer):
            assert time.monotonic() < end, "it stays"
            with contextlib.suppress(OSError):
                peer.sendall(then[-1:])


def test_work_and_the_pause_between_requests_are_no_silence(hasty: _Server) -> None:
    hasty.seconds = 2 * connection_limits._REQUEST_SECONDS
    with hasty.call() as peer:
        for _ in range(2):
            peer.sendall(_WHOLE)
            assert _answer(peer).startswith(b"HTTP/1.1 200")
            time.sleep(2 * connection_limits._REQUEST_SECONDS)
        peer.sendall(_WHOLE + _WHOLE)  # the second while the first is at work
        for _ in range(2):
            assert _answer(peer).startswith(b"HTTP/1.1 200")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[_Server]:
    """Room for 8, over TLS."""
    keys = init_home(tmp_path / "srv", ["localhost"], 8443).folder / "keys"
    made = _Server(8, ssl_certfile=keys / "tls.pem", ssl_keyfile=keys / "tls.key")
    yield made
    made.close()


def _is_let_in(server: _Server, source: str, stack: contextlib.ExitStack) -> bool:
    """Whether the server leaves a connection open that has sent nothing, not even its TLS hello."""
    before, end = server.door._open.total(), time.monotonic() + _WAIT
    peer = stack.enter_context(server.call(source))
    peer.settimeout(0.05)
    while server.door._open.total() == before:
        if _hung_up(peer):
            return False
        assert time.monotonic() < end
    return not _hung_up(peer)


def test_one_peer_has_a_quarter_of_the_places_and_all_no_more_than_there_are(small: _Server) -> None:
    with contextlib.ExitStack() as silent:
        assert [_is_let_in(small, "127.0.0.1", silent) for _ in range(4)] == [True, True, False, False]
        others = [_is_let_in(small, f"127.0.0.{peer}", silent) for peer in (2, 2, 3, 3, 4, 4, 5)]
        assert others == [True] * 6 + [False]
    end = time.monotonic() + _WAIT
    while small.door._open:
        assert time.monotonic() < end, "places of connections that ended are free again"
        time.sleep(0.01)
    with contextlib.ExitStack() as silent:
        assert _is_let_in(small, "127.0.0.5", silent)


@pytest.mark.parametrize(
    ("addresses", "peers"),
    [
        (["192.0.2.1", "192.0.2.2"], 2),
        (["2001:db8::1", "2001:db8::ffff:1"], 1),
        (["2001:db8::1", "2001:db8:0:1::1"], 2),
    ],
)
def test_an_ipv6_network_is_one_peer(addresses: list[str], peers: int) -> None:
    assert len({connection_limits._peer(address) for address in addresses}) == peers


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "room"),
    [
        (1024, 524288, 2667, MAX_CONNECTIONS),
        (1024, -1, 2667, MAX_CONNECTIONS),
        (1024, 1024, 1024, 768),
        (8192, 8192, 8192, MAX_CONNECTIONS),
        (-1, -1, -1, MAX_CONNECTIONS),
    ],
)
def test_connections_leave_a_quarter_of_the_open_files_to_checkpoints(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int, room: int
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda what: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda what, both: limits.append(both))
    assert most_connections() == room
    assert limits[-1] == (raised, hard)
