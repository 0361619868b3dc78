"""Flower's fleet protocol as a server could serve it that means harm: whatever a script says, byte for byte."""

import contextlib
import http.server
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest, PullObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from support.https import _serving

from confide.simulations.engines.grid import InProcessGrid, SkippingClock

# Status, headers, and the pieces of a body; a length is announced only where the headers do.
Answer = tuple[int, dict[str, str], Iterable[bytes]]


@contextmanager
def serving(keys: Path, answer: Callable[[str, bytes], Answer]) -> Iterator[int]:
    """A TLS server with the certificate of a folder; ``answer`` is given path and body of each request."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, headers, pieces = answer(self.path, body)
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()  # HTTP/1.0: a body without a length ends with the connection
            with contextlib.suppress(OSError):  # the client has seen enough
                for piece in pieces:
                    self.wfile.write(piece)

        def log_message(self, *_: object) -> None:
            """Silence."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "tls.pem", keys / "tls.key")

    class Server(http.server.ThreadingHTTPServer):
        def finish_request(self, request: socket.socket, address: object) -> None:  # type: ignore[override]
            with contextlib.suppress(OSError), context.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, address)  # type: ignore[arg-type]

    with _serving(Server(("127.0.0.1", 0), Handler)) as port:
        yield port


def ask_of(content: RecordDict) -> Message:
    """An ask as a server makes it."""
    return InProcessGrid(ClientApp(), 1, SkippingClock()).create_message(content, "train", 1000, "1", ttl=600.0)


def handing_out(ask: Message, more_parts: int = 0) -> Callable[[str, bytes], Answer]:
    """Answers polls with one ask, and hands out its parts; it may name some of them more often than they are there."""
    ask.metadata.__dict__["_message_id"] = ask.object_id
    objects, tree = get_all_nested_objects(ask), get_object_tree(ask)
    tree.children.extend([ObjectTree(object_id=ask.object_id)] * more_parts)
    head = message_to_proto(remove_content_from_message(ask))
    polled = PullMessagesResponse(messages_list=[head], message_object_trees=[tree])

    def answer(path: str, body: bytes) -> Answer:
        if path.endswith("/pull-messages"):
            return whole(polled)
        wanted: Any = PullObjectRequest.FromString(body).object_id
        content = objects[wanted].deflate()
        return whole(PullObjectResponse(object_found=True, object_available=True, object_content=content))

    return answer


def whole(response: Any) -> Answer:
    """A protobuf answer as an honest server gives it."""
    body = response.SerializeToString()
    return 200, {"content-type": "application/x-protobuf", "content-length": str(len(body))}, [body]
