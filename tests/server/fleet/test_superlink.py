"""Flower's own application behind the gate: its signatures, what an ask renews, and polls that wait for one."""

import base64
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.corestate import sql_corestate
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from confide.server.fleet import client_limits as clients_module
from confide.server.fleet.client_limits import QUOTA, Clients
from confide.server.fleet.connection_limits import Connection
from confide.server.fleet.flower_app import fleet_app
from confide.server.fleet.public_port import DatabaseTurn, FleetGate, FleetServer
from confide.server.fleet.request_bodies import SMALL_BODY
from confide.server.fleet.superlink import FlowerState, LinkGrid

_SIZE = 4 * 2**20
MARY, JUDE, STRANGER = (ec.generate_private_key(ec.SECP384R1()) for _ in range(3))


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return public_key_to_bytes(key.public_key())


class _Server:
    """Flower's application, our gate before it, and two approved institutions that are connected."""

    def __init__(self, folder: Path) -> None:
        app, turn, clients = fleet_app(folder / "link.db", 1), DatabaseTurn(), Clients()
        self._socket = socket.create_server(("127.0.0.1", 0))
        settings: Any = {"http": Connection, "log_config": None, "ws": "none", "timeout_graceful_shutdown": 1}
        self._uvicorn = FleetServer(uvicorn.Config(FleetGate(app, turn, clients), **settings), clients)
        self._thread = threading.Thread(target=self._uvicorn.run, args=([self._socket],), daemon=True)
        self._thread.start()
        while not self._uvicorn.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        self.link, self.clients = FlowerState(app, turn, clients), clients
        nodes = self.link.admit({"mary": _public(MARY), "jude": _public(JUDE)})
        self.node = {name: node for node, name in nodes.items()}
        for key in (MARY, JUDE):
            self.client(key).ActivateNode(ActivateNodeRequest(public_key=_public(key), heartbeat_interval=10))

    def client(self, key: ec.EllipticCurvePrivateKey, claims: ec.EllipticCurvePrivateKey | None = None) -> Any:
        """A client with a key, which may claim to be another."""
        interceptor = NodeAuthHttpInterceptor(key, (claims or key).public_key())
        return FleetHttpClient(f"http://127.0.0.1:{self.port}", interceptors=[interceptor])

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(timeout=10)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flwr"))
    monkeypatch.setenv("NO_PROXY", "*")
    made = _Server(tmp_path)
    yield made
    made.close()


def _status(push: Any, request: Any) -> int:
    try:
        push(request)
    except httpx.HTTPStatusError as error:
        return error.response.status_code
    return 200


def _ask(grid: LinkGrid, node_id: int) -> list[str]:
    content = RecordDict({"ask": ConfigRecord({"round": 1})})
    return list(grid.push_messages([grid.create_message(content, "train", node_id, "1", ttl=3600.0)]))


def _answer(client: Any, node_id: int) -> Message:
    """An honest answer to what a client pulls, as it is packed."""
    pulled = client.PullMessages(PullMessagesRequest(node=Node(node_id=node_id)))
    ask = message_from_proto(pulled.messages_list[0])
    content = RecordDict({"update": ConfigRecord({"payload": b"x" * 1000, "envelope": "{}"})})
    ask.metadata.__dict__["_message_id"] = pulled.message_object_trees[0].object_id
    reply = Message(content, reply_to=ask)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    return reply


def _announce(client: Any, node_id: int, reply: Message, tree: ObjectTree) -> Any:
    head = message_to_proto(remove_content_from_message(reply))
    node = Node(node_id=node_id)
    request = PushMessagesRequest(node=node, messages_list=[head], message_object_trees=[tree])
    assert request.ByteSize() < SMALL_BODY / 4, "an honest one is far smaller than the gate allows"
    return client.PushMessages(request)


def _send(client: Any, node_id: int, reply: Message) -> None:
    response = _announce(client, node_id, reply, get_object_tree(reply))
    objects = get_all_nested_objects(reply)
    for object_id in response.objects_to_push:
        request = PushObjectRequest(
            node=Node(node_id=node_id),
            run_id=reply.metadata.run_id,
            session_id=response.session_id,
            object_id=object_id,
            object_content=objects[object_id].deflate(),
        )
        assert client.PushObject(request).stored


def test_a_flood_of_objects_ends_at_the_quota_until_the_next_ask(server: _Server) -> None:
    grid = LinkGrid(server.link)
    with server.link.run(grid) as run:
        node, other = server.node["mary"], server.node["jude"]

        def request(node_id: int) -> PushObjectRequest:
            return PushObjectRequest(
                node=Node(node_id=node_id),
                run_id=run.run_id,
                session_id="none",
                object_id="0" * 64,
                object_content=bytes(_SIZE),
            )

        _ask(grid, node)
        for _ in range(2 * QUOTA // _SIZE):  # in mary's name, by somebody who has not got her key
            assert _status(server.client(STRANGER, MARY).PushObject, request(node)) == 401
        mary = server.client(MARY)
        statuses = [_status(mary.PushObject, request(node)) for _ in range(2 * QUOTA // _SIZE)]
        allowed = QUOTA // _SIZE - 1  # the rest of a request takes a few bytes too
        assert statuses == [200] * allowed + [413] * (len(statuses) - allowed)
        assert _status(server.client(JUDE).PushObject, request(other)) == 200
        _ask(grid, other)
        assert _status(mary.PushObject, request(node)) == 413
        _ask(grid, node)
        assert _status(mary.PushObject, request(node)) == 200


@pytest.mark.parametrize("seconds", [90, 7 * 86400, -7 * 86400])
def test_a_run_outlives_a_server_that_stood_still_and_a_clock_that_was_set(
    server: _Server, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """Flower fails a run whose task is silent for 60 s, and refuses its clients' answers for good."""
    grid, node, mary = LinkGrid(server.link), server.node["mary"], server.client(MARY)
    real = sql_corestate.now
    with server.link.run(grid) as run:
        asks = _ask(grid, node)
        reply = _answer(mary, node)
        monkeypatch.setattr(sql_corestate, "now", lambda: real() + timedelta(seconds=seconds))
        for _ in range(2):  # the first look is what would fail it
            assert server.link.state.get_run_info(run_ids=[run.run_id])[0].status.status == "running"
        _send(mary, node, reply)
        [taken] = grid.pull_messages(asks)
        assert not taken.has_error()
        asks = _ask(grid, node)
        _send(mary, node, _answer(mary, node))
        assert len(list(grid.pull_messages(asks))) == 1
    assert server.link.state.get_run_info(run_ids=[run.run_id])[0].status.sub_status == "completed"


def test_an_answer_of_more_objects_than_any_is_dropped_before_one_of_them_comes(server: _Server) -> None:
    grid, node, mary = LinkGrid(server.link), server.node["mary"], server.client(MARY)
    with server.link.run(grid):
        asks = _ask(grid, node)
        reply = _answer(mary, node)
        children = [ObjectTree(object_id=f"{number:064x}") for number in range(8)]
        _announce(mary, node, reply, ObjectTree(object_id=reply.object_id, children=children))
        [dropped] = grid.pull_messages(asks)
        assert dropped.error.reason == "malformed reply"
        assert list(grid.pull_messages(asks)) == [], "it is forgotten"


def test_of_half_an_answer_no_more_is_read_than_to_the_first_gap(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every look is with the database held, ten times a second."""
    grid, node, mary = LinkGrid(server.link), server.node["mary"], server.client(MARY)
    with server.link.run(grid):
        asks = _ask(grid, node)
        reply = _answer(mary, node)
        _announce(mary, node, reply, get_object_tree(reply))
        read, get = list[str](), grid._store.get
        monkeypatch.setattr(grid._store, "get", lambda name: read.append(name) or get(name))  # type: ignore[func-returns-value]
        assert list(grid.pull_messages(asks)) == []
        assert len(read) == 1


def test_a_part_of_the_next_ask_that_a_client_announced_otherwise_ends_no_run(server: _Server) -> None:
    """The adapter of round 1 is public, and Flower takes no object that it knows with other parts."""
    grid, node, mary = LinkGrid(server.link), server.node["mary"], server.client(MARY)
    round_1 = RecordDict({"ask": ConfigRecord({"round": 1}), "adapter": ConfigRecord({"safetensors": b"public"})})
    part = round_1["adapter"].object_id
    poison = ObjectTree(object_id=part, children=[ObjectTree(object_id="f" * 64)])

    def push() -> list[str]:
        return list(grid.push_messages([grid.create_message(round_1, "train", server.node["jude"], "1", ttl=60.0)]))

    with server.link.run(grid):
        asks = _ask(grid, node)
        reply = _answer(mary, node)
        _announce(mary, node, reply, ObjectTree(object_id=reply.object_id, children=[poison]))
        [refused] = grid.pull_messages(iter(push()))  # while she is asked: one ask is lost, and counts as an error
        assert refused.has_error()
        grid.forget(asks)
        asks = push()
        _send(server.client(JUDE), server.node["jude"], _answer(server.client(JUDE), server.node["jude"]))
        [taken] = grid.pull_messages(asks)
        assert not taken.has_error()


def test_an_offer_that_is_out_for_rounds_keeps_no_leftovers_and_is_answered(
    server: _Server,
) -> None:
    """Jude takes his time to answer; Mary announces something beside her answer in every round: nothing of it stays."""
    grid, (mary, jude) = LinkGrid(server.link), (server.client(MARY), server.client(JUDE))
    with server.link.run(grid):
        content = RecordDict({"ask": ConfigRecord({"round": 0})})
        offer = grid.create_message(content, "query.offer", server.node["jude"], "0", ttl=60.0)
        out = list(grid.push_messages([offer]))
        half = _answer(jude, server.node["jude"])
        _announce(jude, server.node["jude"], half, get_object_tree(half))
        sizes = []
        for number in range(3):
            asks = _ask(grid, server.node["mary"])
            reply = _answer(mary, server.node["mary"])
            waste = [ObjectTree(object_id=f"{number}{place:063x}") for place in range(5)]
            _announce(mary, server.node["mary"], reply, ObjectTree(object_id=reply.object_id, children=waste))
            sizes.append(len(grid._store))
            grid.forget(asks)
        assert sizes[1] == sizes[2], "what was announced for one round is gone in the next"
        _send(jude, server.node["jude"], half)
        [taken] = grid.pull_messages(out)
        assert not taken.has_error()


def test_a_run_leaves_nothing_in_the_database(server: _Server) -> None:
    """In months there are many."""
    grid = LinkGrid(server.link)
    with server.link.run(grid) as run:
        _ask(grid, server.node["mary"])
        assert server.link.state.get_message_ids_from_run_id(run.run_id)
        assert len(grid._store)
    assert not server.link.state.get_message_ids_from_run_id(run.run_id)
    assert not len(grid._store)


def test_a_stranger_over_whose_key_flower_fails_is_not_remembered(server: _Server) -> None:
    """Before it looks at the signature; and there are as many such keys as one likes."""
    key = X25519PrivateKey.generate().public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    headers = {
        FLEET_HTTP_PUBLIC_KEY_HEADER: base64.b64encode(pem).decode(),
        FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(b"any").decode(),
        TIMESTAMP_HEADER: now().isoformat(),
        "content-type": "application/protobuf",
    }
    with httpx.Client() as web:
        url = f"http://127.0.0.1:{server.port}/v1/fleet/push-messages"
        assert web.post(url, content=PushMessagesRequest().SerializeToString(), headers=headers).status_code == 500
    assert server.clients._pushed == {}


def test_a_key_that_was_revoked_is_a_stranger_s_from_then_on(server: _Server) -> None:
    keys = {"mary": _public(MARY), "jude": _public(JUDE)}
    assert [server.clients.knows(key) for key in keys.values()] == [True, True]
    server.link.admit({"jude": keys["jude"]})
    assert [server.clients.knows(key) for key in keys.values()] == [False, True]
    server.clients.ask(server.node["mary"])
    server.clients.ask(server.node["jude"])
    assert list(server.clients._unpulled) == [keys["jude"]]


def test_a_key_of_a_registry_that_was_put_back_is_admitted_again(server: _Server) -> None:
    """Flower keeps the row of a deleted node and refuses its key: every later look at the registry would fail."""
    keys = {"mary": _public(MARY), "jude": _public(JUDE)}
    for _ in range(2):
        server.link.admit({})
        assert set(server.link.admit(keys).values()) == {"mary", "jude"}


def test_what_cannot_be_cleaned_up_does_not_decide_how_a_run_ended(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(run_id: int) -> None:
        raise RuntimeError("database or disk is full")

    monkeypatch.setattr(server.link.state, "cleanup_run", fails)
    with server.link.run(LinkGrid(server.link)):
        pass


@pytest.fixture
def patient(server: _Server, monkeypatch: pytest.MonkeyPatch) -> _Server:
    """A server that holds a poll longer than a client waits for its answer (30 s)."""
    monkeypatch.setattr(clients_module, "_HOLD_SECONDS", 1000.0)
    return server


def _held(server: _Server) -> int:
    return sum(map(len, server.clients._held.values()))


def _until_held(server: _Server, count: int) -> None:
    end = time.monotonic() + 20
    while _held(server) != count:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_no_ask_is_waited_past_whenever_it_comes(patient: _Server) -> None:
    """Before a poll, while it is on its way, while it is held: a poll that waited past its ask would time out."""
    grid, mary = LinkGrid(patient.link), patient.client(MARY)
    request = PullMessagesRequest(node=Node(node_id=patient.node["mary"]))
    with patient.link.run(grid), ThreadPoolExecutor(1) as threads:
        for _ in range(30):
            pulled = threads.submit(mary.PullMessages, request)
            time.sleep(random.choice([0.0, 0.002, 0.004, 0.008, 0.03]))  # noqa: S311 - a moment
            _ask(grid, patient.node["mary"])
            assert len(pulled.result().messages_list) == 1


def test_an_ask_that_comes_after_its_client_hung_up_is_kept_for_the_next_poll(patient: _Server) -> None:
    grid, mary = LinkGrid(patient.link), patient.client(MARY)
    request = PullMessagesRequest(node=Node(node_id=patient.node["mary"]))
    hasty = patient.client(MARY)
    hasty._client.timeout = httpx.Timeout(0.5)
    with patient.link.run(grid):
        with pytest.raises(httpx.ReadTimeout):
            hasty.PullMessages(request)
        _until_held(patient, 0)
        _ask(grid, patient.node["mary"])
        assert len(mary.PullMessages(request).messages_list) == 1


def test_a_server_that_ends_refuses_who_is_held_and_waits_for_nobody(
    patient: _Server, caplog: pytest.LogCaptureFixture
) -> None:
    requests = {MARY: patient.node["mary"], JUDE: patient.node["jude"]}
    with ThreadPoolExecutor(2) as threads:
        pulled = [
            threads.submit(_status, patient.client(key).PullMessages, PullMessagesRequest(node=Node(node_id=node)))
            for key, node in requests.items()
        ]
        _until_held(patient, 2)
        patient.close()
        assert [each.result() for each in pulled] == [503, 503]
    assert not patient._thread.is_alive()
    assert not [record for record in caplog.records if "exceeded" in record.getMessage()], "it waited, and gave up"
