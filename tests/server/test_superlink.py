"""Flower's own application behind the gate: its signatures, and what an ask renews."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, RecordDict
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from confide.server.fleet_gate import QUOTA, FleetGate, Quota, Turn
from confide.server.superlink import Link, LinkGrid, fleet_app

_SIZE = 4 * 2**20
MARY, JUDE, STRANGER = (ec.generate_private_key(ec.SECP384R1()) for _ in range(3))


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return public_key_to_bytes(key.public_key())


class _Server:
    """Flower's application, our gate before it, and two approved institutions that are connected."""

    def __init__(self, folder: Path) -> None:
        app, turn, quota = fleet_app(folder / "link.db", 1), Turn(), Quota()
        self._socket = socket.create_server(("127.0.0.1", 0))
        settings: Any = {"log_config": None, "ws": "none", "timeout_graceful_shutdown": 1}
        self._uvicorn = uvicorn.Server(uvicorn.Config(FleetGate(app, turn, quota), **settings))
        self._thread = threading.Thread(target=self._uvicorn.run, args=([self._socket],), daemon=True)
        self._thread.start()
        while not self._uvicorn.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        self.link = Link(app, turn, quota)
        nodes = self.link.admit({"mary": _public(MARY), "jude": _public(JUDE)})
        self.node = {name: node for node, name in nodes.items()}
        for key in (MARY, JUDE):
            self.client(key).ActivateNode(ActivateNodeRequest(public_key=_public(key), heartbeat_interval=10))

    def client(self, key: ec.EllipticCurvePrivateKey, claims: ec.EllipticCurvePrivateKey | None = None) -> Any:
        """A client with a key, which may claim to be another."""
        interceptor = NodeAuthHttpInterceptor(key, (claims or key).public_key())
        return FleetHttpClient(f"http://127.0.0.1:{self._socket.getsockname()[1]}", interceptors=[interceptor])

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


def _status(push: Any, request: PushObjectRequest) -> int:
    try:
        push(request)
    except httpx.HTTPStatusError as error:
        return error.response.status_code
    return 200


def test_a_flood_of_objects_ends_at_the_quota_until_the_next_ask(server: _Server) -> None:
    grid = LinkGrid(server.link)
    with server.link.run(grid) as run:
        node, other = server.node["mary"], server.node["jude"]

        def ask(node_id: int) -> None:
            content = RecordDict({"ask": ConfigRecord({"round": 1})})
            list(grid.push_messages([grid.create_message(content, "train", node_id, "1", ttl=60.0)]))

        def request(node_id: int) -> PushObjectRequest:
            return PushObjectRequest(
                node=Node(node_id=node_id),
                run_id=run.run_id,
                session_id="none",
                object_id="0" * 64,
                object_content=bytes(_SIZE),
            )

        ask(node)
        for _ in range(2 * QUOTA // _SIZE):  # in mary's name, by somebody who has not got her key
            assert _status(server.client(STRANGER, MARY).PushObject, request(node)) == 401
        mary = server.client(MARY)
        statuses = [_status(mary.PushObject, request(node)) for _ in range(2 * QUOTA // _SIZE)]
        allowed = QUOTA // _SIZE - 1  # the rest of a request takes a few bytes too
        assert statuses == [200] * allowed + [413] * (len(statuses) - allowed)
        assert _status(server.client(JUDE).PushObject, request(other)) == 200
        ask(other)
        assert _status(mary.PushObject, request(node)) == 413
        ask(node)
        assert _status(mary.PushObject, request(node)) == 200
