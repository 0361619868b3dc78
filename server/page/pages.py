"""The pages of the server, and its forms. Each form does what the command of its name does."""

import secrets
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from confide.common.config.run import MAX_RUN_BYTES
from confide.common.errors import ConfideError, InputError
from confide.common.pages.events import news
from confide.common.pages.guard import EVENTS, House, Page, Visit, pages_app
from confide.common.pages.rendering import render
from confide.common.pages.sessions import Sessions
from confide.common.protocol.enrolment import request_from, write_json
from confide.server.daemon.admin import with_token
from confide.server.daemon.logs import RecentLines
from confide.server.daemon.orders import propose, resume_run, stop_run
from confide.server.daemon.server_state import ServerState
from confide.server.home.admission import Admitted, admit
from confide.server.home.locking import lock_run_in_child
from confide.server.page.facts import Observer, newest
from confide.server.page.once import Once

_PACKAGE = "confide.server.page"
_IDLE_SECONDS = 8 * 3600.0  # a working day: who follows a run does not click
_PASTED = "the pasted run.toml"


def page_routes(shared: ServerState, recent: RecentLines) -> Sequence[BaseRoute]:
    """Return the routes of the page on the admin port: the pages, and the order of a link, which needs the token."""
    sessions, observer = Sessions(_IDLE_SECONDS), Observer(shared)

    async def link(request: Request) -> Response:
        # The command reads the files of the run that the first page shows, so that the browser does not wait for them.
        await run_in_threadpool(lambda: observer.latest(observer.runs()))
        return JSONResponse({"path": f"/page/open/{sessions.new_link()}"})

    house = House(sessions, "`confide server page` prints one.")
    return [
        Route("/page/links", with_token(shared, link), methods=["POST"]),
        Mount("/page", ServerPages(shared, recent, house, observer).app()),
    ]


class ServerPages:
    """The pages of one server.

    Args:
        shared: the server.
        recent: its last log lines.
        house: links and sessions.
        observer: gives the facts.
    """

    def __init__(self, shared: ServerState, recent: RecentLines, house: House, observer: Observer) -> None:
        self._shared, self._recent, self._house, self._observer = shared, recent, house, observer
        self._once = Once()

    def app(self) -> Any:
        """Return the web application."""
        return pages_app(
            self._house,
            [
                Page("", self.overview),
                Page("runs/{name}", self.run),
                Page("propose", self.form_of_a_run),
                Page("admit", self.form_of_a_request),
                Page("logs", self.logs),
                Page(EVENTS, self.events),
                Page("propose", self.propose, "POST", 4 * MAX_RUN_BYTES),
                Page("admit", self.admit, "POST"),
                Page("runs/{name}/stop", self.stop, "POST"),
                Page("runs/{name}/resume", self.resume, "POST"),
                Page("end", self.end, "POST"),
            ],
        )

    async def overview(self, visit: Visit) -> Response:
        """Show troubles, the run that is going on, institutions, and the queue."""

        def facts() -> dict[str, Any]:
            runs = self._observer.runs()
            shown = self._observer.latest(runs)
            troubles = sorted(self._shared.troubles.values())
            known = {"shown": shown, "institutions": self._observer.institutions(shown), "troubles": troubles}
            return {**known, "runs": newest(runs), "stopping": self._shared.stopping}

        return await self._shown(visit, "overview.html", facts)

    async def run(self, visit: Visit) -> Response:
        """Show one run."""

        def facts() -> dict[str, Any]:
            shown = self._observer.run(visit.request.path_params["name"])
            return {
                "shown": shown,
                "institutions": self._observer.institutions(shown),
                "stopping": self._shared.stopping,
            }

        return await self._shown(visit, "run.html", facts)

    async def form_of_a_run(self, visit: Visit) -> Response:
        """Show the form that proposes or rehearses a run."""
        return await self._shown(visit, "propose.html", lambda: {"number": secrets.token_urlsafe(16)})

    async def form_of_a_request(self, visit: Visit) -> Response:
        """Show the form that admits an institution."""
        return await self._shown(visit, "admit.html", lambda: {"admitted": None, "kit": ""})

    async def logs(self, visit: Visit) -> Response:
        """Show the last lines of the log."""
        return await self._shown(visit, "logs.html", lambda: {"lines": list(self._recent.lines)[::-1]})

    async def events(self, visit: Visit) -> Response:
        """Tell the open pages when something has changed."""

        def state() -> object:
            return self._observer.state(), len(self._recent.lines) and self._recent.lines[-1]

        return news(visit, self._house.sessions, state, lambda: not self._shared.going)

    async def propose(self, visit: Visit) -> Response:
        """Queue a run, or a rehearsal of it."""
        text, kind = visit.form.get("run", ""), "rehearsal" if visit.form.get("kind") == "rehearsal" else "run"
        if kind == "run" and visit.form.get("sure") != "yes":
            raise InputError("nothing was proposed: the box was not ticked; a rehearsal needs none")
        number = visit.form.get("number", "")
        if not number:
            raise InputError("nothing was proposed: this form has no number; open the page again")
        name = await self._once.ordered((number, text, kind), lambda: self._propose(text, kind))
        return visit.then(f"{name}: queued", f"runs/{name}")

    async def admit(self, visit: Visit) -> Response:
        """Admit an institution, if the typed fingerprint is that of its request; show its kit."""
        typed = visit.form.get("fingerprint", "")
        if not typed.strip():
            raise InputError("not admitted: type the fingerprint that the institution read to you by telephone")

        def work() -> Admitted:
            asked = request_from(visit.form.get("request", ""), "the pasted request")
            return admit(self._shared.home, asked, typed, "the pasted request")

        admitted = await run_in_threadpool(work)
        facts = {"admitted": admitted, "kit": write_json(admitted.kit)}
        return await self._shown(visit, "admit.html", lambda: facts)

    async def stop(self, visit: Visit) -> Response:
        """Stop a run after its open round."""
        name = visit.request.path_params["name"]
        now = await run_in_threadpool(stop_run, self._shared, name)
        return visit.then(f"{name}: {'running; it stops after its open round' if now == 'running' else now}")

    async def resume(self, visit: Visit) -> Response:
        """Queue an ended run again."""
        name = visit.request.path_params["name"]
        return visit.then(f"{name}: {await run_in_threadpool(resume_run, self._shared, name)}")

    async def end(self, visit: Visit) -> Response:
        """End the session."""
        self._house.sessions.end(visit.session)
        root = visit.request.scope.get("root_path", "")
        text = "You have left the page. The server goes on."
        return HTMLResponse(render("told.html", root, title="Left", text=text, back=""))

    def _propose(self, text: str, kind: str) -> str:
        with tempfile.NamedTemporaryFile("w", dir=self._shared.home.folder, suffix=".toml", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            try:
                return propose(self._shared, lock_run_in_child(self._shared.home.folder, Path(file.name)), kind)
            except ConfideError as error:
                raise InputError(str(error).replace(file.name, _PASTED)) from None

    async def _shown(self, visit: Visit, template: str, facts: Callable[[], dict[str, Any]]) -> Response:
        def work() -> str:
            root = visit.request.scope.get("root_path", "")
            common = {"visit": visit, "address": self._shared.home.address, "events": visit.path(EVENTS)}
            return render(template, root, _PACKAGE, **common, **facts())

        answer = HTMLResponse(await run_in_threadpool(work))
        if "x-live" not in visit.request.headers:
            visit.session.said = ""
        return answer
