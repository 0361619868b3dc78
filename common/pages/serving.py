"""A page on loopback, served until it is left alone or a person ends it."""

import asyncio
import socket
from typing import Any

import uvicorn

from confide.common.errors import InputError
from confide.common.pages.sessions import Sessions, seconds

_MOST_REQUESTS = 64  # at once: pages of one person, and the streams of their news


def listen(port: int) -> socket.socket:
    """Return a socket on 127.0.0.1, on any free port for 0; `InputError` if the port is taken."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise InputError(f"--port {port}: {error.strerror}; name another one, or 0 for any that is free") from None


def serve_page(app: Any, listening: socket.socket, sessions: Sessions) -> None:
    """Serve until a signal, or until no session was open for the idle time. No path is logged: they are secret."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        ws="none",
        server_header=False,
        limit_concurrency=_MOST_REQUESTS,
        timeout_graceful_shutdown=1,
    )
    server, since = uvicorn.Server(config), seconds()

    async def run() -> None:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not serving.done():
            await asyncio.wait([serving], timeout=1.0)
            server.should_exit = server.should_exit or sessions.is_left_alone(since)
        await serving

    asyncio.run(run())
