"""The public port against hostile clients: what is not served, what is too large, and what is too much."""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from starlette.datastructures import Headers
from uvicorn.server import ServerState

from confide.server.fleet import client_limits, public_port, request_bodies
from confide.server.fleet.client_limits import MAX_BODY, QUOTA, Clients
from confide.server.fleet.connection_limits import Connection
from confide.server.fleet.public_port import DatabaseTurn, FleetGate
from confide.server.fleet.request_bodies import MAX_HELD, MAX_OF_A_KEY, SMALL_BODY

PUSH, PULL, MESSAGES = "/v1/fleet/push-object", "/v1/fleet/pull-messages", "/v1/fleet/push-messages"
MARY, JUDE = b"key of mary", b"key of jude"
MEGABYTE = b"x" * 2**20


class _Flower:
    """Flower's application: it knows whose signature is right, keeps what it is given, and answers."""

    def __init__(self) -> None:
        self.taken = dict[bytes, int]()
        self.status = 200

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
        event = await receive()
        assert not event["more_body"]
        await asyncio.sleep(0.001)  # it has a database to go to, and others come meanwhile
        headers = dict(reversed(scope["headers"]))  # the first of a name, as Starlette has it
        status = self.status if headers.get(b"signature") == b"right" else 401
        if status == 200:
            key = base64.b64decode(headers[b"flwr-public-key"])
            self.taken[key] = self.taken.get(key, 0) + len(event["body"])
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"answer"})


class _Wire:
    """A gate before Flower, and clients that call it."""

    def __init__(self) -> None:
        self.flower, self.clients = _Flower(), Clients()
        self.clients.admit({1: "mary", 2: "jude"}, {"mary": MARY, "jude": JUDE})
        self.gate = FleetGate(self.flower, DatabaseTurn(), self.clients)
        self.pulled = 0

    def call(
        self,
        path: str,
        key: bytes = MARY,
        *,
        chunks: Iterator[bytes] | None = None,
        signature: bytes = b"right",
        headers: list[tuple[bytes, bytes]] | None = None,
        written: bytes | None = None,
    ) -> int:
        """One request; its status. `pulled`: bytes that the gate has taken off the wire for it."""
        self.pulled, answer, body = 0, list[Any](), iter([MEGABYTE]) if chunks is None else chunks
        name = base64.b64encode(key) if written is None else written
        sent = [(b"flwr-public-key", name), (b"signature", signature), *(headers or [])]

        async def receive() -> Any:
            chunk = next(body, None)
            self.pulled += len(chunk or b"")
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

        async def send(event: Any) -> None:
            answer.append(event)

        asyncio.run(self.gate({"type": "http", "path": path, "headers": sent}, receive, send))
        return int(answer[0]["status"])


@pytest.fixture
def wire() -> _Wire:
    return _Wire()


def test_only_the_fleet_s_paths_that_our_client_calls_and_health_are_served(wire: _Wire) -> None:
    assert wire.call(PULL, chunks=iter([])) == 200
    fleet = ("/v1/fleet/get-fab", "/v1/fleet/get-run", "/v1/fleet/confirm-message-received", "/v1/fleet/push-object/")
    for path in ("/", "/docs", "/v1/control/start-run", "/v1/runtime", *fleet):
        assert wire.call(path) == 404, path
        assert wire.pulled == 0


# A body without end


def test_a_gigabyte_in_one_body_is_cut_off_after_8_megabytes(wire: _Wire) -> None:
    assert wire.call(PUSH, chunks=iter([MEGABYTE] * 1024)) == 413
    assert MAX_BODY < wire.pulled <= MAX_BODY + len(MEGABYTE)
    assert wire.flower.taken == {}


def test_a_gigabyte_that_is_announced_is_not_read_at_all(wire: _Wire) -> None:
    announced = [(b"content-length", str(2**30).encode())]
    assert wire.call(PUSH, chunks=iter([MEGABYTE] * 1024), headers=announced) == 413
    assert wire.pulled == 0


@pytest.mark.parametrize("path", sorted(public_port.FLEET_PATHS - {PUSH}))
def test_nothing_but_an_object_may_be_large(wire: _Wire, path: str) -> None:
    """One `push-messages` of 8 MB that announced a hundred thousand objects held the database for everybody."""
    assert wire.call(path, chunks=iter([b"x" * SMALL_BODY])) == 200
    assert wire.call(path, chunks=iter([b"x" * SMALL_BODY, b"x"])) == 413
    assert wire.call(path, headers=[(b"content-length", str(SMALL_BODY + 1).encode())]) == 413
    assert wire.pulled == 0


# What is in memory at a time


def test_a_stranger_may_send_a_small_body_and_no_more(wire: _Wire) -> None:
    assert wire.call(PUSH, b"stranger", signature=b"", chunks=iter([b"x" * SMALL_BODY])) == 401
    announced = [(b"content-length", str(SMALL_BODY + 1).encode())]
    assert wire.call(PUSH, b"stranger", headers=announced) == 413
    assert wire.pulled == 0
    assert wire.call(PUSH, b"stranger", chunks=iter([b"x" * SMALL_BODY] * 1024)) == 413
    assert wire.pulled == 2 * SMALL_BODY


class _Stalled:
    """Requests in some client's name that send almost a whole body, and then nothing, until they are let go."""

    def __init__(self, wire: _Wire, ending: str) -> None:
        self.wire, self.ending, self.statuses = wire, ending, list[int]()
        self.taken, self.let_go = 0, asyncio.Event()

    async def __call__(self, key: bytes) -> None:
        chunks = iter([MEGABYTE] * (MAX_BODY // len(MEGABYTE) - 1))

        async def receive() -> Any:
            await asyncio.sleep(0)
            if (chunk := next(chunks, None)) is None:
                await self.let_go.wait()
                return {"type": self.ending, "body": b"end", "more_body": False}
            self.taken += len(chunk)
            return {"type": "http.request", "body": chunk, "more_body": True}

        async def send(event: Any) -> None:
            self.statuses += [event["status"]] if "status" in event else []

        sent = [(b"flwr-public-key", base64.b64encode(key)), (b"signature", b"wrong")]
        await self.wire.gate({"type": "http", "path": PUSH, "headers": sent}, receive, send)


@pytest.mark.parametrize("ending", ["http.disconnect", "http.request", "timeout"])
def test_hundreds_of_half_bodies_fill_part_of_memory_and_small_requests_go_on(
    wire: _Wire, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, whole = 300, iter([MEGABYTE] * 8)
    names = {f"client {number}": b"key of client %d" % number for number in range(count // 2)}
    wire.clients.admit({}, names | {"jude": JUDE})
    monkeypatch.setattr(request_bodies, "_BODY_SECONDS", 3600)

    async def flood() -> None:
        wire.gate._turn = DatabaseTurn()
        stalled = _Stalled(wire, ending)
        others = [asyncio.create_task(stalled(key)) for key in names.values() for _ in range(2)]
        most = MAX_HELD // (MAX_BODY - 2 * len(MEGABYTE))
        while len(stalled.statuses) < count - most and stalled.taken < count * (MAX_BODY - len(MEGABYTE)):
            await asyncio.sleep(0)
        for _ in range(100):  # whoever is in the middle goes on as far as it can
            await asyncio.sleep(0)
        assert set(stalled.statuses) == {503}
        reading = [task for task in others if not task.done()]
        assert len(reading) >= MAX_HELD // MAX_BODY
        assert sum(len(MEGABYTE) * 7 for _ in reading) <= MAX_HELD + count * SMALL_BODY
        assert await asyncio.to_thread(wire.call, PULL, JUDE, chunks=iter([b"x" * SMALL_BODY])) == 200
        large = iter([MEGABYTE] * 8)
        assert await asyncio.to_thread(wire.call, PUSH, JUDE, chunks=large) == 503
        if ending == "timeout":
            for task in reading:
                task.cancel()
            await asyncio.wait(reading)
        stalled.let_go.set()
        await asyncio.wait(others)

    asyncio.run(flood())
    wire.gate._turn = DatabaseTurn()
    assert wire.call(PUSH, JUDE, chunks=whole) == 200, "what they held is free again"
    assert wire.gate._bodies._held == {}


def test_half_bodies_in_one_client_s_name_refuse_nobody_else_s(wire: _Wire) -> None:
    async def flood() -> None:
        stalled = _Stalled(wire, "http.disconnect")
        others = [asyncio.create_task(stalled(MARY)) for _ in range(40)]
        for _ in range(100):  # all have sent what they send
            await asyncio.sleep(0)
        assert set(stalled.statuses) == {503}
        assert wire.gate._bodies._held.total() <= MAX_OF_A_KEY
        wire.gate._turn = DatabaseTurn()
        assert await asyncio.to_thread(wire.call, PUSH, MARY, chunks=iter([MEGABYTE] * 8)) == 503
        assert await asyncio.to_thread(wire.call, PUSH, JUDE, chunks=iter([MEGABYTE] * 8)) == 200
        stalled.let_go.set()
        await asyncio.wait(others)

    asyncio.run(flood())


def test_a_body_that_never_ends_is_refused_in_time_and_frees_its_place(
    wire: _Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_bodies, "_BODY_SECONDS", 0.1)

    async def wait() -> None:
        stalled = _Stalled(wire, "never")
        async with asyncio.timeout(20):
            await stalled(MARY)
        assert stalled.statuses == [408]

    asyncio.run(wait())
    assert wire.gate._bodies._held == {}


def test_a_stranger_s_key_is_forgotten_with_its_request(wire: _Wire) -> None:
    assert wire.call(PUSH, b"stranger", signature=b"", chunks=iter([b"x"])) == 401
    assert wire.gate._bodies._held == {}


@pytest.mark.parametrize("length", [b"+5", b"5_0", b"-1", b"0x5", b"9" * 40, b"5\r\ncontent-length: 6"])
def test_a_length_that_is_no_number_does_not_reach_the_gate(length: bytes) -> None:
    """`int` takes more than a header may say."""
    reached = list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)

    async def ask() -> bytes:
        config = uvicorn.Config(app, http=Connection, ws="none", log_config=None, lifespan="off")
        config.load()
        state = ServerState()

        def protocol() -> Any:
            return config.http_protocol_class(config=config, server_state=state, app_state={})  # type: ignore[call-arg]

        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"POST " + PUSH.encode() + b" HTTP/1.1\r\nhost: a\r\ncontent-length: " + length + b"\r\n\r\n")
        status = await asyncio.wait_for(reader.readline(), 20)
        writer.close()
        server.close()
        return status

    assert asyncio.run(ask()).startswith(b"HTTP/1.1 400")
    assert reached == []


# Object after object


def test_a_client_that_pushes_without_end_is_stopped_and_the_others_are_not(
    wire: _Wire, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "confide"):
        statuses = [wire.call(PUSH) for _ in range(3 * QUOTA // len(MEGABYTE))]
    most = QUOTA // len(MEGABYTE)
    assert statuses == [200] * most + [413] * (len(statuses) - most)
    assert wire.flower.taken == {MARY: QUOTA}
    assert [record.message for record in caplog.records] == [
        f"mary pushed {QUOTA} bytes for one ask and is refused until it is asked again"
    ], "one line, whatever it goes on doing"
    assert wire.call(PUSH, JUDE) == 200
    assert wire.call(PULL, chunks=iter([])) == 200, "it may still ask for work, and say that it is alive"


def test_the_next_ask_renews_the_quota_of_its_client_alone(wire: _Wire) -> None:
    for key in (MARY, JUDE):
        while wire.call(PUSH, key) == 200:
            pass
    wire.clients.ask(1)
    assert [wire.call(PUSH, key) for key in (MARY, JUDE)] == [200, 413]
    wire.clients.ask(3)  # of nobody
    assert wire.call(PUSH, JUDE) == 413


def test_messages_count_as_objects_do_and_so_does_what_comes_after_a_run(wire: _Wire) -> None:
    wire.flower.status = 403  # Flower says that the run is over, to a client whose signature is right
    for _ in range(QUOTA // len(MEGABYTE) - 1):
        assert wire.call(PUSH) == 403
    for _ in range(len(MEGABYTE) // SMALL_BODY):
        assert wire.call(MESSAGES, chunks=iter([b"x" * SMALL_BODY])) == 403
    assert [wire.call(path, chunks=iter([b"x"])) for path in (PUSH, MESSAGES)] == [413, 413]


def test_messages_that_flower_fails_over_have_an_end(wire: _Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_limits, "QUOTA", 4 * SMALL_BODY)
    wire.flower.status = 500
    statuses = [wire.call(MESSAGES, chunks=iter([b"x" * SMALL_BODY])) for _ in range(6)]
    assert statuses == [500] * 4 + [413] * 2


def test_a_stranger_over_whose_key_flower_fails_is_not_remembered(wire: _Wire) -> None:
    """It fails over some keys before it looks at a signature, and a stranger has as many as it likes."""
    wire.flower.status = 500
    for number in range(3):
        assert wire.call(MESSAGES, b"stranger %d" % number, chunks=iter([b"x"])) == 500
    assert wire.clients._pushed == {}


def test_a_head_of_more_than_16_kb_is_refused_unread(wire: _Wire) -> None:
    """h11 bounds one that comes in pieces; one of 256 KB may come at once."""
    assert wire.call(PUSH, headers=[(b"x", b"a" * 2**13)]) == 200
    assert wire.call(PUSH, headers=[(b"x", b"a" * 2**14)]) == 431
    assert (wire.pulled, wire.flower.taken) == (0, {MARY: len(MEGABYTE)})


def test_an_object_that_the_server_cannot_keep_may_come_again(wire: _Wire) -> None:
    """A client sends its answer again while the server's disk is full, and it must not use up the quota."""
    wire.flower.status = 500
    assert [wire.call(PUSH) for _ in range(2 * QUOTA // len(MEGABYTE))] == [500] * (2 * QUOTA // len(MEGABYTE))
    wire.flower.status = 200
    assert wire.call(PUSH) == 200


def test_of_two_keys_in_one_request_the_one_that_flower_checks_is_counted(wire: _Wire) -> None:
    """Starlette, which Flower asks, knows the first header of a name."""
    both = [(b"flwr-public-key", base64.b64encode(JUDE))]
    assert Headers(raw=[(b"flwr-public-key", b"first"), *both])["flwr-public-key"] == "first"
    while wire.call(PUSH, MARY, headers=both) != 413:
        pass
    assert [wire.call(PUSH, key) for key in (MARY, JUDE)] == [413, 200]


def test_nobody_can_use_up_another_s_quota(wire: _Wire) -> None:
    """A request names its key, and a key is public: without its signature nothing is counted."""
    for _ in range(2 * QUOTA // len(MEGABYTE)):
        assert wire.call(PUSH, signature=b"wrong") == 401
    assert wire.call(PUSH) == 200


def test_a_key_written_in_another_way_is_the_same_client(wire: _Wire) -> None:
    """base64 has several texts for some bytes, and Flower takes them all."""
    key = b"key of mary!!"
    wire.clients.admit({1: "mary"}, {"mary": key})
    usual = base64.b64encode(key)
    other = usual[:-3] + bytes([usual[-3] + 1]) + usual[-2:]
    assert other != usual
    assert base64.b64decode(other, validate=True) == key
    while wire.call(PUSH, key) == 200:
        pass
    assert wire.call(PUSH, key, written=other) == 413


def test_many_at_once_get_no_more_than_one_after_the_other(wire: _Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are read before the first is counted."""
    monkeypatch.setattr(request_bodies, "MAX_OF_A_KEY", MAX_HELD)

    async def flood() -> list[int]:
        wire.gate._turn = DatabaseTurn()
        return list(await asyncio.gather(*(one() for _ in range(2 * QUOTA // len(MEGABYTE)))))

    async def one() -> int:
        answer = list[Any]()

        async def receive() -> Any:
            await asyncio.sleep(0)
            return {"type": "http.request", "body": MEGABYTE, "more_body": False}

        async def send(event: Any) -> None:
            answer.append(event)

        sent = [(b"flwr-public-key", base64.b64encode(MARY)), (b"signature", b"right")]
        await wire.gate({"type": "http", "path": PUSH, "headers": sent}, receive, send)
        return int(answer[0]["status"])

    statuses = asyncio.run(flood())
    assert statuses.count(200) == QUOTA // len(MEGABYTE)
    assert wire.flower.taken == {MARY: QUOTA}


@pytest.mark.parametrize("header", [b"", b"%%%", b"\xff\xfe", b"AAA"])
def test_a_request_without_a_key_is_flower_s_to_refuse(wire: _Wire, header: bytes) -> None:
    small = iter([b"x" * SMALL_BODY])
    assert wire.call(PUSH, signature=b"", written=header, chunks=small) == 401
    assert wire.call(PUSH, written=header) == 413


def test_the_name_of_the_header_is_flower_s() -> None:
    assert FLEET_HTTP_PUBLIC_KEY_HEADER.encode() == public_port._KEY_HEADER
