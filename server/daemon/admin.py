"""The admin port on loopback: the operator's commands need a token, health and metrics need none."""

import hmac
import json
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from confide.common.config.run import MAX_RUN_BYTES, RunConfig
from confide.common.errors import ConfideError
from confide.server.daemon.orders import TOO_LARGE, propose, resume_run, stop_run
from confide.server.daemon.server_state import ServerState
from confide.server.daemon.status import metrics_text, status_facts

_MAX_EVENTS = 1000  # in one answer
_MAX_BODY = 4 * MAX_RUN_BYTES  # JSON in JSON: a quote takes two bytes, a letter with an accent up to six


def admin_app(shared: ServerState, more: Sequence[BaseRoute] = ()) -> Any:
    """Return the web application of the admin port, with ``more`` routes behind its own."""
    admin = _Admin(shared)
    guarded = [
        Route("/runs", with_token(shared, admin.add), methods=["POST"]),
        Route("/status", with_token(shared, admin.status)),
        Route("/runs/{name}/events", with_token(shared, admin.events)),
        Route("/runs/{name}/stop", with_token(shared, admin.stop), methods=["POST"]),
        Route("/runs/{name}/resume", with_token(shared, admin.resume), methods=["POST"]),
    ]
    open_to_all = [Route(path, handler) for path, handler in admin.open.items()]
    return Starlette(routes=[*guarded, *open_to_all, *more])


class _Admin:
    """The handlers of the admin port, one method for each request.

    Files are read and written in a thread: the loop serves the institutions too, whose heartbeats wait 5 s at most.
    """

    def __init__(self, shared: ServerState) -> None:
        self._shared = shared
        self.open = {"/ready": self.ready, "/health": self.health, "/metrics": self.metrics}

    async def add(self, request: Request) -> Response:
        """Queue a run or a rehearsal."""
        body = await request.body()
        if len(body) > _MAX_BODY:
            return JSONResponse({"error": TOO_LARGE}, 413)
        asked = json.loads(body)

        def work() -> str:
            return propose(self._shared, RunConfig.model_validate_json(asked["run"]), asked["kind"])

        return JSONResponse({"name": await run_in_threadpool(work)})

    async def status(self, request: Request) -> Response:
        """Return the facts about runs and institutions."""
        return JSONResponse(await run_in_threadpool(status_facts, self._shared))

    async def events(self, request: Request) -> Response:
        """Return the events of a run from a given number on."""
        name, after = request.path_params["name"], int(request.query_params.get("after", "0"))
        return JSONResponse(await run_in_threadpool(_events, self._shared, name, after))

    async def stop(self, request: Request) -> Response:
        """Stop a run after its open round, or remove it from the queue."""
        return JSONResponse({"status": await run_in_threadpool(stop_run, self._shared, request.path_params["name"])})

    async def resume(self, request: Request) -> Response:
        """Queue an unfinished or completed run again."""
        return JSONResponse({"status": await run_in_threadpool(resume_run, self._shared, request.path_params["name"])})

    async def health(self, request: Request) -> Response:
        """Answer that the process is alive."""
        return PlainTextResponse("healthy\n")

    async def ready(self, request: Request) -> Response:
        """Answer whether the server can carry out runs: it has started, and no trouble blocks its worker."""
        if self._shared.link is None:
            return PlainTextResponse("starting\n", 503)
        trouble = self._shared.troubles.get("worker")
        return PlainTextResponse(f"{trouble}\n" if trouble else "ready\n", 503 if trouble else 200)

    async def metrics(self, request: Request) -> Response:
        """Return the metrics for Prometheus."""
        try:
            text = await run_in_threadpool(metrics_text, self._shared)
        except ConfideError as error:
            return PlainTextResponse(f"{error}\n", 503)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def _events(shared: ServerState, name: str, after: int) -> dict[str, Any]:
    queued = shared.queue.get(name)
    path = shared.home.runs / name / "events.jsonl"
    content = path.read_bytes() if path.is_file() else b""
    lines = content.split(b"\n")[:-1]  # a line behind the last newline is still being written
    shown = [line.decode() for line in lines[after : after + _MAX_EVENTS]]
    return {"status": queued.status, "reason": queued.reason, "events": shown}


def with_token(shared: ServerState, handler: Any) -> Any:
    """Wrap a handler: it requires the token and turns our errors into answers."""

    async def guarded(request: Request) -> Response:
        shown = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(shown, f"Bearer {shared.home.token}".encode()):
            return JSONResponse({"error": "the admin token is missing or wrong"}, 401)
        try:
            answer: Response = await handler(request)
        except ConfideError as error:
            return JSONResponse({"error": str(error), "exit_code": error.exit_code}, 400)
        except OSError as error:
            reason = f"{error.filename or shared.home.folder}: {error.strerror}; mend it at the server, then ask again"
            return JSONResponse({"error": reason, "exit_code": 1}, 500)
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": "not a request of this version"}, 400)
        return answer

    return guarded
