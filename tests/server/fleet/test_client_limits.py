"""Polls that are held: nobody waits past an ask, no ask is lost, and no stranger gains anything."""

import asyncio
import base64
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from confide.server.fleet import client_limits
from confide.server.fleet.client_limits import Clients
from confide.server.fleet.public_port import DatabaseTurn, FleetGate

MARY, JUDE, STRANGER = b"key of mary", b"key of jude", b"key of a stranger"
_HANGS = 20.0  # seconds


class _Flower:
    """Flower's application: it checks signatures, and hands each ask out once."""

    def __init__(self) -> None:
        self.asks, self.pulls, self.paths = {MARY: 0, JUDE: 0}, list[bytes](), list[str]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = dict(scope["headers"])
        key = base64.b64decode(headers[b"flwr-public-key"])
        self.pulls.append(key)
        self.paths.append(scope["path"].rpartition("/")[2])
        known = headers[b"signature"] == b"right"
        body = b"ask" if known and self.asks.get(key) else b""
        if body:
            self.asks[key] -= 1
        await send({"type": "http.response.start", "status": 200 if known else 401, "headers": []})
        await send({"type": "http.response.body", "body": body})


class _Poll:
    """One poll on its way, and its end."""

    def __init__(self, gate: FleetGate, key: bytes, signature: bytes, path: str = "pull-messages") -> None:
        self.answer, self._gone, self._sent = list[Any](), asyncio.Event(), False
        headers = [(b"flwr-public-key", base64.b64encode(key)), (b"signature", signature)]
        scope = {"type": "http", "path": f"/v1/fleet/{path}", "headers": headers}
        self.task = asyncio.ensure_future(gate(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": b"poll", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: Any) -> None:
        self.answer.append(event)

    async def end(self) -> tuple[int, bytes]:
        """Status and body, once they are there."""
        await self.task
        return self.answer[0]["status"], self.answer[1]["body"]

    async def leave(self) -> None:
        """The client goes away."""
        self._gone.set()
        await asyncio.sleep(0.05)


class _Server:
    """A gate with two approved clients, who poll."""

    def __init__(self) -> None:
        self.flower, self.clients, self.turn = _Flower(), Clients(), DatabaseTurn()
        self.clients.admit({1: "mary", 2: "jude"}, {"mary": MARY, "jude": JUDE})
        self.gate = FleetGate(self.flower, self.turn, self.clients)

    async def poll(self, key: bytes = MARY, signature: bytes = b"right") -> _Poll:
        """A poll that has gone as far as it can."""
        poll = _Poll(self.gate, key, signature)
        await asyncio.sleep(0.05)
        return poll

    def ask(self, node_id: int = 1) -> None:
        """The run asks a client."""
        self.flower.asks[MARY if node_id == 1 else JUDE] += 1
        self.clients.ask(node_id)


Scene = Callable[[_Server], Coroutine[Any, Any, None]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scene], None]:
    """Plays a scene in which no poll ends because time has passed."""
    monkeypatch.setattr(client_limits, "_HOLD_SECONDS", 1000.0)

    def play_it(scene: Scene) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(_HANGS):
                await scene(_Server())

        asyncio.run(bounded())

    return play_it


def test_a_poll_is_held_until_its_client_is_asked_and_nobody_else_is_woken(play: Callable[[Scene], None]) -> None:
    async def scene(server: _Server) -> None:
        mary, jude = await server.poll(MARY), await server.poll(JUDE)
        assert server.flower.pulls == [], "an empty pull costs as much as a full one"
        server.ask(1)
        assert await mary.end() == (200, b"ask")
        assert not jude.task.done()
        server.ask(2)
        assert await jude.end() == (200, b"ask")

    play(scene)


def test_a_poll_never_waits_past_an_ask_that_was_there_before_it(play: Callable[[Scene], None]) -> None:
    """Flower hands out one ask for each pull, so one pull after two asks leaves one to wait for."""

    async def scene(server: _Server) -> None:
        server.ask()
        server.ask()
        for _ in range(2):
            assert await (await server.poll()).end() == (200, b"ask")
        third = await server.poll()
        assert not third.task.done()
        server.ask()
        assert await third.end() == (200, b"ask")

    play(scene)


def test_a_poll_without_an_ask_ends_after_a_while(
    play: Callable[[Scene], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_limits, "_HOLD_SECONDS", 0.1)

    async def scene(server: _Server) -> None:
        assert await (await server.poll()).end() == (200, b"")
        assert await (await server.poll()).end() == (200, b"")

    play(scene)


# A client that goes away


def test_a_client_that_went_away_while_it_was_held_loses_no_ask(play: Callable[[Scene], None]) -> None:
    async def scene(server: _Server) -> None:
        for _ in range(client_limits._MAX_HELD + 1):
            poll = await server.poll()
            assert not poll.task.done(), "who is gone does not take a place"
            await poll.leave()
            assert poll.task.done()
        server.ask()
        assert await (await server.poll()).end() == (200, b"ask")
        assert server.flower.pulls == [MARY]

    play(scene)


def test_a_client_that_went_away_while_others_had_the_turn_loses_no_ask(play: Callable[[Scene], None]) -> None:
    async def scene(server: _Server) -> None:
        poll = await server.poll()
        async with server.turn.semaphore:
            server.ask()
            await poll.leave()
        await poll.task
        assert server.flower.pulls == []
        assert await (await server.poll()).end() == (200, b"ask")

    play(scene)


def test_an_ask_goes_to_a_client_s_newest_poll_and_not_to_one_that_broke_unseen(
    play: Callable[[Scene], None],
) -> None:
    async def scene(server: _Server) -> None:
        for _ in range(5):  # by chance the newest is often first
            broken, own = await server.poll(), await server.poll()
            server.ask()
            assert await own.end() == (200, b"ask")
            await broken.task

    play(scene)


def test_a_request_that_is_answered_leaves_nothing_behind(play: Callable[[Scene], None]) -> None:
    """Each watches for its client's going away, which may be hours later."""

    async def scene(server: _Server) -> None:
        server.ask()
        assert await (await server.poll()).end() == (200, b"ask")
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    play(scene)


# Strangers: anybody can name another's key


def test_a_stranger_cannot_have_an_ask_counted_as_pulled(play: Callable[[Scene], None]) -> None:
    async def scene(server: _Server) -> None:
        server.ask()
        for _ in range(3):
            assert await (await server.poll(MARY, b"wrong")).end() == (401, b"")
        assert await (await server.poll()).end() == (200, b"ask")

    play(scene)


def test_strangers_do_not_pile_up_and_their_victim_still_gets_its_asks(play: Callable[[Scene], None]) -> None:
    async def scene(server: _Server) -> None:
        for _ in range(20):
            assert await (await server.poll(STRANGER, b"wrong")).end() == (401, b""), "never held"
        polls = [await server.poll(MARY, b"wrong") for _ in range(20)]
        held = [poll for poll in polls if not poll.task.done()]
        assert len(held) == client_limits._MAX_HELD
        assert await (await server.poll()).end() == (200, b""), "as if nothing were ever held"
        server.ask()
        assert [await poll.end() for poll in held] == [(401, b"")] * len(held)
        assert await (await server.poll()).end() == (200, b"ask")

    play(scene)


def test_who_is_held_when_the_server_ends_is_refused_and_pulls_nothing(play: Callable[[Scene], None]) -> None:
    async def scene(server: _Server) -> None:
        poll = await server.poll()
        server.clients.close()
        assert (await poll.end())[0] == 503
        assert (await (await server.poll()).end())[0] == 503
        assert server.flower.pulls == []

    play(scene)


def test_a_heartbeat_and_the_run_do_not_wait_behind_the_requests_of_all_others(play: Callable[[Scene], None]) -> None:
    """Flower's client waits 5 s for the answer to a heartbeat."""

    async def scene(server: _Server) -> None:
        turn = server.turn.semaphore
        await turn.acquire()
        others = [_Poll(server.gate, JUDE, b"right", "pull-object") for _ in range(20)]
        await asyncio.sleep(0.05)
        heartbeat, run = (
            _Poll(server.gate, MARY, b"right", "send-node-heartbeat"),
            asyncio.ensure_future(turn.acquire()),
        )
        await asyncio.sleep(0.05)
        turn.release()
        await run
        assert server.flower.paths == ["pull-object", "send-node-heartbeat"]
        turn.release()
        for request in (heartbeat, *others):
            assert (await request.end())[0] == 200

    play(scene)


def test_strangers_heartbeats_stand_in_line_and_one_in_a_client_s_name_does_not(
    play: Callable[[Scene], None],
) -> None:
    """One at a time in a client's name; the others of its name stand in line too."""

    async def scene(server: _Server) -> None:
        async with server.turn.semaphore:
            pulls = [_Poll(server.gate, JUDE, b"right", "pull-object") for _ in range(3)]
            beats = [
                _Poll(server.gate, key, b"wrong", "send-node-heartbeat") for key in (MARY, STRANGER) for _ in range(20)
            ]
            await asyncio.sleep(0.05)
        for request in (*pulls, *beats):
            await request.end()
        assert server.flower.paths[:4] == ["pull-object", "send-node-heartbeat", "pull-object", "pull-object"]
        assert await _Poll(server.gate, MARY, b"right", "send-node-heartbeat").end() == (200, b"")
        assert server.gate._beating == set()

    play(scene)
