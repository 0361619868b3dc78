"""Flower's own fleet API behind TLS and without our gate: what a server could serve that means harm."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Message, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.supercore.fab import Fab
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from confide.client.service.link import Answer
from confide.client.service.link import Link as ClientLink
from confide.server.fleet.client_limits import Clients
from confide.server.fleet.connection_limits import Connection
from confide.server.fleet.flower_app import fleet_app
from confide.server.fleet.public_port import DatabaseTurn
from confide.server.fleet.superlink import FlowerState, LinkGrid

_PATIENCE = 60.0
_PROJECT = """
[project]
name = "{project}"
version = "1.0.0"
description = "hostile"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "server"
[tool.flwr.app.components]
serverapp = "{name}.app:app"
clientapp = "{name}.app:app"
"""


def make_bundle(name: str, marker: Path) -> bytes:
    """A bundle as Flower makes and installs them, whose modules write a file when they are imported."""
    harm = f"from pathlib import Path\nPath({str(marker)!r}).touch()\n".encode()
    project = _PROJECT.format(name=name, project=name.replace("_", "-")).encode()
    files = {"pyproject.toml": project, f"{name}/__init__.py": harm, f"{name}/app.py": harm}
    return build_fab_from_files(files)[0]


class Fleet:
    """A server with one approved client, whose bundle, if there is one, is that of every run.

    Attributes:
        port: where.
        paths: of every request, in order.
        node: of the client.
    """

    def __init__(self, folder: Path, keys: Path, client: EllipticCurvePrivateKey, bundle: bytes = b"") -> None:
        self.paths = list[str]()
        self._app, self._turn, clients = fleet_app(folder / "link.db", 1), DatabaseTurn(), Clients()
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        tls: Any = {"ssl_certfile": keys / "tls.pem", "ssl_keyfile": keys / "tls.key", "timeout_graceful_shutdown": 1}
        settings: Any = {"interface": "asgi3", "http": Connection, "ws": "none", "log_config": None, **tls}
        self._uvicorn = uvicorn.Server(uvicorn.Config(self._serve, **settings))
        self._thread = threading.Thread(target=self._uvicorn.run, args=([listening],), daemon=True)
        self._thread.start()
        while not self._uvicorn.started:
            assert self._thread.is_alive()
            time.sleep(0.01)
        self._link = FlowerState(self._app, self._turn, clients)
        [self.node] = self._link.admit({"st-mary": public_key_to_bytes(client.public_key())})
        if bundle:
            self._name_in_runs(bundle)

    @contextmanager
    def asked(self, content: RecordDict, kind: str) -> Iterator[Message]:
        """The reply of the client to an ask, once it is connected; the run ends with the block."""
        grid = LinkGrid(self._link)
        with self._link.run(grid):
            self._wait(grid.get_node_ids)
            [ask] = grid.push_messages([grid.create_message(content, kind, self.node, "1", ttl=3600.0)])
            [reply] = self._wait(lambda: grid.pull_messages([ask]))
            yield reply

    def close(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(timeout=10)

    def _wait(self, look: Callable[[], Iterable[Any]]) -> list[Any]:
        """What is there, as soon as anything is."""
        end = time.monotonic() + _PATIENCE
        while not (found := list(look())):
            assert time.monotonic() < end, f"the client does not come, or does not answer; it requested {self.paths}"
            time.sleep(0.05)
        return found

    def _name_in_runs(self, bundle: bytes) -> None:
        """As runs of stock Flower do; ours name none."""
        state, create = self._link.state, self._link.state.create_run
        named = ("server/hostile", "1.0.0", state.store_fab(Fab("", bundle, {})))
        state.create_run = lambda fab_id, version, fab_hash, *rest: create(*named, *rest)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            self._turn.loop = asyncio.get_running_loop()
            await self._app(scope, receive, send)
        else:
            self.paths.append(scope["path"])
            async with self._turn.semaphore:
                await self._app(scope, receive, send)


@contextmanager
def linked(address: str, ca: bytes, key: EllipticCurvePrivateKey, answer: Answer) -> Iterator[None]:
    """The product's link to a server, in a thread, until the block ends."""
    stop = threading.Event()
    link = ClientLink(address, ca, key, answer, stop)
    thread = threading.Thread(target=link.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=40)
        link._http.close()
    assert not thread.is_alive()
