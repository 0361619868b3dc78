"""Servers and proxies on loopback, as an institution meets them: right, wrong, or in between."""

import contextlib
import http.server
import select
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confide.common.protocol.enrolment import Kit
from confide.server.home.certificates import make_certificates

# What httpx refuses: no package for SOCKS is installed, a bad scheme, a network of addresses where it wants hosts.
UNUSABLE_PROXIES = [
    ("ALL_PROXY", "socks5h://127.0.0.1:1080"),
    ("HTTPS_PROXY", "htps://proxy.example.org:3128"),
    ("NO_PROXY", "localhost,fd00::/8"),
]


@dataclass
class Health:
    """A TLS server that answers every GET.

    Attributes:
        port: where.
        requests: what came, as "GET /health".
        ahead: seconds by which its clock is ahead; None: it tells no time.
        status: HTTP status of its answers.
    """

    port: int = 0
    requests: list[str] = field(default_factory=list)
    ahead: float | None = 0.0
    status: int = 200


@contextmanager
def health_server(keys: Path, health: Health | None = None) -> Iterator[Health]:
    """Serves with the certificate of a folder until the block ends."""
    told = health or Health()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.requests.append(self.requestline.removesuffix(" HTTP/1.1"))
            self.send_response_only(told.status)
            if told.ahead is not None:
                self.send_header("Date", self.date_time_string(int(time.time() + told.ahead)))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silence."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "tls.pem", keys / "tls.key")

    class Server(http.server.ThreadingHTTPServer):
        def finish_request(self, request: socket.socket, address: object) -> None:  # type: ignore[override]
            with context.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, address)  # type: ignore[arg-type]

        def handle_error(self, *_: object) -> None:
            """A client that refuses the certificate is what some tests want."""

    with _serving(Server(("127.0.0.1", 0), Handler)) as told.port:
        yield told


@contextmanager
def proxy(to: int, allowed: bool = True) -> Iterator[int]:
    """An HTTP proxy whose every CONNECT ends at one port of this machine; or that refuses all."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            if not allowed:
                self.wfile.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", to)) as other:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n")
                with contextlib.suppress(ConnectionError):  # either side may go as it likes
                    _tunnel(self.connection, other)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with _serving(Server(("127.0.0.1", 0), Handler)) as port:
        yield port


def _tunnel(one: socket.socket, other: socket.socket) -> None:
    while True:
        for source in select.select([one, other], [], [])[0]:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)


@contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]  # type: ignore[misc]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_keys(folder: Path, *names: str) -> Path:
    """An authority and a certificate of its own, in a new folder."""
    folder.mkdir()
    make_certificates(folder, list(names))
    return folder


def make_kit(keys: Path, port: int) -> Kit:
    """What an institution would have of a server with these keys."""
    return Kit(f"127.0.0.1:{port}", (keys / "ca.pem").read_text(encoding="utf-8"), "st-mary", "none")
