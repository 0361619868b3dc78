"""One ask through the installed Flower and its answer back, before a server serves.

This product uses private names of Flower. Flower 1.43 stores messages in another table: everything imports, and a
server would wait for answers for ever.

Private names of Flower here: those with which client/service/link.py packs, signs and sends a message.
"""

import contextlib
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from sqlalchemy.exc import DBAPIError

from confide.common.errors import ConfideError
from confide.server.fleet.client_limits import Clients
from confide.server.fleet.flower_app import fleet_app
from confide.server.fleet.public_port import DatabaseTurn, FleetGate, FleetServer
from confide.server.fleet.superlink import FlowerState, LinkGrid

_START_SECONDS = 60.0
_ASKED, _ANSWERED = {"text": "an ask"}, {"text": "an answer"}


def require_flower(home: Path) -> None:
    """Check that the installed Flower does for one message what this server needs.

    Args:
        home: a folder that can be written; nothing stays in it.

    Raises:
        OSError: the folder cannot be written.
        ConfideError: it does not; no institution was asked anything.
    """
    try:
        with tempfile.TemporaryDirectory(dir=home, prefix="self-test-") as folder:
            answers = _exchange(Path(folder))
    except (OSError, DBAPIError):
        raise
    except Exception as error:
        raise _unfit(f"{type(error).__name__}: {error}") from error
    if answers != [_ANSWERED]:
        raise _unfit("the answer to an ask did not come back")


def _unfit(reason: str) -> ConfideError:
    return ConfideError(
        f"Flower {version('flwr')} does not work as this server needs it: {reason}; nothing was asked of any "
        "institution; pip install 'flwr>=1.41,<1.43'"
    )


def _exchange(folder: Path) -> list[dict[str, Any]]:
    """Ask one node, answer as that node, and return the answers that the server reads."""
    key, turn, clients = ec.generate_private_key(ec.SECP384R1()), DatabaseTurn(), Clients()
    app, public = fleet_app(folder / "link.db", 1), public_key_to_bytes(key.public_key())
    with _serving(FleetGate(app, turn, clients), clients) as address, _direct() as http:
        state = FlowerState(app, turn, clients)
        [node_id] = state.admit({"self-test": public})
        fleet: Any = FleetHttpClient(address, interceptors=[NodeAuthHttpInterceptor(key, key.public_key())])
        fleet._client.close()
        fleet._client = http
        fleet.ActivateNode(ActivateNodeRequest(public_key=public, heartbeat_interval=10))
        grid = LinkGrid(state)
        with state.run(grid):
            ask = grid.create_message(RecordDict({"ask": ConfigRecord({**_ASKED})}), "train", node_id, "1", ttl=60.0)
            sent = list(grid.push_messages([ask]))
            _answer(fleet, Node(node_id=node_id))
            replies = list(grid.pull_messages(sent))
        return [dict(reply.content["answer"]) for reply in replies if not reply.has_error()]


def _direct() -> httpx.Client:
    """Return a client that asks no proxy: one that the environment names cannot reach this machine's own port."""
    return httpx.Client(trust_env=False, timeout=30.0)


@contextlib.contextmanager
def _serving(gate: FleetGate, clients: Clients) -> Iterator[str]:
    """Serve on a free port of this machine, and give its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    settings: Any = {"log_config": None, "ws": "none", "timeout_graceful_shutdown": 1}
    server = FleetServer(uvicorn.Config(gate, **settings), clients)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        end = time.monotonic() + _START_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > end:
                raise RuntimeError("its application does not start")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def _answer(fleet: Any, node: Node) -> None:
    """Pull one ask as a client does, and push an answer to it."""
    pulled = fleet.PullMessages(PullMessagesRequest(node=node))
    if not pulled.messages_list:
        raise ValueError("an ask that the server stored does not reach its node")
    head, tree = message_from_proto(pulled.messages_list[0]), pulled.message_object_trees[0]
    run_id = head.metadata.run_id
    objects = {
        part.object_id: fleet.PullObject(
            PullObjectRequest(node=node, run_id=run_id, object_id=part.object_id)
        ).object_content
        for part in iterate_object_tree(tree)
    }
    ask: Any = inflate_object_from_contents(tree.object_id, objects)
    if dict(ask.content["ask"]) != _ASKED:
        raise ValueError("the ask changed on its way")
    ask.metadata.__dict__["_message_id"] = tree.object_id
    reply = Message(RecordDict({"answer": ConfigRecord({**_ANSWERED})}), reply_to=ask)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    parts, reply_tree = get_all_nested_objects(reply), get_object_tree(reply)
    request = PushMessagesRequest(
        node=node,
        messages_list=[message_to_proto(remove_content_from_message(reply))],
        message_object_trees=[reply_tree],
        clientapp_runtime_list=[0.0],
    )
    pushed = fleet.PushMessages(request)
    for object_id in pushed.objects_to_push:
        content = parts[object_id].deflate()
        ids = {"run_id": run_id, "session_id": pushed.session_id, "object_id": object_id}
        fleet.PushObject(PushObjectRequest(node=node, object_content=content, **ids))
