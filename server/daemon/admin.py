"""The admin port on loopback: the operator's commands need a token, health and metrics need none."""

import hmac
import json
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from confide.common.config.run import MAX_RUN_BYTES, RunConfig
from confide.common.errors import ConfideError, InputError
from confide.server.daemon.server_state import ServerState
from confide.server.daemon.status import metrics_text, status_facts
from confide.server.home.queue import ENDED, QueuedRun
from confide.server.results.run_directory import RunDirectory

_MAX_EVENTS = 1000  # in one answer
_MAX_BODY = 4 * MAX_RUN_BYTES  # JSON in JSON: a quote takes two bytes, a letter with an accent up to six


def admin_app(shared: ServerState) -> Any:
    """Return the web application of the admin port."""
    admin = _Admin(shared)
    guarded = [
        Route("/runs", _guard(shared, admin.add), methods=["POST"]),
        Route("/status", _guard(shared, admin.status)),
        Route("/runs/{name}/events", _guard(shared, admin.events)),
        Route("/runs/{name}/stop", _guard(shared, admin.stop), methods=["POST"]),
        Route("/runs/{name}/resume", _guard(shared, admin.resume), methods=["POST"]),
    ]
    open_to_all = [Route(path, handler) for path, handler in admin.open.items()]
    return Starlette(routes=[*guarded, *open_to_all])


class _Admin:
    """The handlers of the admin port, one method for each request."""

    def __init__(self, shared: ServerState) -> None:
        self._shared = shared
        self.open = {"/ready": self.ready, "/health": self.health, "/metrics": self.metrics}

    async def add(self, request: Request) -> Response:
        """Queue a run or a rehearsal."""
        body = await request.body()
        if len(body) > _MAX_BODY:
            return _too_large()
        asked = json.loads(body)
        run = RunConfig.model_validate_json(asked["run"])
        if len(run.canonical_json().encode()) > MAX_RUN_BYTES:
            return _too_large()
        return JSONResponse({"name": self._shared.queue.add(run, asked["kind"]).name})

    async def status(self, request: Request) -> Response:
        """Return the facts about runs and institutions."""
        return JSONResponse(await run_in_threadpool(status_facts, self._shared))

    async def events(self, request: Request) -> Response:
        """Return the events of a run from a given number on."""
        name, after = request.path_params["name"], int(request.query_params.get("after", "0"))
        queued = self._shared.queue.get(name)
        path = self._shared.home.runs / name / "events.jsonl"
        content = path.read_bytes() if path.is_file() else b""
        lines = content.split(b"\n")[:-1]  # a line behind the last newline is still being written
        shown = [line.decode() for line in lines[after : after + _MAX_EVENTS]]
        return JSONResponse({"status": queued.status, "reason": queued.reason, "events": shown})

    async def stop(self, request: Request) -> Response:
        """Stop a run after its open round, or remove it from the queue."""
        queued = self._shared.queue.get(request.path_params["name"])
        ended = replace(queued, status="completed" if self._is_over(queued) else "stopped")
        now = self._shared.queue.change(ended, ["queued"])
        if now.status == "running":
            self._shared.stopping = now.name
        return JSONResponse({"status": now.status})

    async def resume(self, request: Request) -> Response:
        """Queue an unfinished run again: the server offers it anew and continues it.

        A completed run sends its adapter to the participants that lack it.
        """
        queued = self._shared.queue.get(request.path_params["name"])
        if queued.status == "completed" and not self._is_over(queued):
            raise InputError(f"run {queued.name!r} is completed, and nothing of it is left to give out")
        if self._shared.stopping == queued.name:
            self._shared.stopping = None  # the operator had asked it to stop after its open round
        now = self._shared.queue.change(replace(queued, status="queued", reason=""), ENDED)
        return JSONResponse({"status": now.status})

    async def health(self, request: Request) -> Response:
        """Answer that the process is alive."""
        return PlainTextResponse("healthy\n")

    def _is_over(self, queued: QueuedRun) -> bool:
        return RunDirectory.at(self._shared.home.runs / queued.name).is_over()

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


def _too_large() -> Response:
    return JSONResponse({"error": f"a run has at most {MAX_RUN_BYTES} bytes; shorten it"}, 413)


def _guard(shared: ServerState, handler: Any) -> Any:
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
