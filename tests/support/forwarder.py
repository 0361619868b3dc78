"""A network between a client and its server, on loopback, that can be cut: nothing passes and nobody is told."""

import contextlib
import socket
import threading
from collections.abc import Iterator

_CHUNK = 2**16


class Forwarder:
    """Listens on a port of its own and passes everything on to a server's, until `passing` is cleared."""

    def __init__(self, port: int) -> None:
        self._to, self.passing, self._over = port, threading.Event(), threading.Event()
        self.passing.set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """No new connections; what waits ends."""
        self._over.set()
        self.passing.set()
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near = self._listening.accept()[0]
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self.passing.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self._to))
        except OSError:
            near.close()
            return
        threading.Thread(target=self._pump, args=(far, near), daemon=True).start()
        self._pump(near, far)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(_CHUNK):
                self.passing.wait()  # what was under way when the line was cut arrives when it is whole again
                if self._over.is_set():
                    break
                target.sendall(content)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def forwarded(port: int) -> Iterator[Forwarder]:
    """A forwarder to a server's port."""
    made = Forwarder(port)
    try:
        yield made
    finally:
        made.close()
