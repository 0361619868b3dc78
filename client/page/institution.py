"""The pages of an institution, and its forms. Each form does what the command of its name does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, Response

from confide.client.config import load_site_config
from confide.client.page.overview import overview_of, state_of
from confide.client.page.request import find_run, request_of, require_agreement
from confide.client.site.installation import open_site
from confide.client.steward import pausing
from confide.client.steward.approval import approve_run
from confide.client.steward.ledger_report import close_study, egress_of
from confide.client.steward.offers import decline_run
from confide.client.steward.shared_noise import own_fingerprint, partners_of, shared_runs
from confide.common.aloud import HASH_DIGITS
from confide.common.errors import InputError
from confide.common.pages.events import news
from confide.common.pages.guard import EVENTS, House, Page, Visit, pages_app
from confide.common.pages.rendering import render

_PACKAGE = "confide.client.page"


class InstitutionPages:
    """The pages of the institution of a site.toml.

    Args:
        path: of site.toml. Everything is read anew for every page.
        house: links and sessions.
    """

    def __init__(self, path: Path, house: House) -> None:
        self._path, self._house = path, house
        self._state = load_site_config(path).state.dir
        overview_of(path)  # an accountant counts the past now, and keeps it

    def app(self) -> Any:
        """Return the web application."""
        return pages_app(
            self._house,
            [
                Page("", self.overview),
                Page("requests/{sha256}", self.request),
                Page("left", self.left),
                Page("partners", self.partners),
                Page(EVENTS, self.events),
                Page("requests/{sha256}/approve", self.approve, "POST"),
                Page("requests/{sha256}/decline", self.decline, "POST"),
                Page("studies/{study}/close", self.close, "POST"),
                Page("pause", self.pause, "POST"),
                Page("resume", self.resume, "POST"),
                Page("end", self.end, "POST"),
            ],
        )

    async def overview(self, visit: Visit) -> Response:
        """Show what waits for a person, the client, the budget, the studies and what left."""
        return await self._shown(visit, "overview.html", lambda: {"facts": overview_of(self._path)})

    async def request(self, visit: Visit) -> Response:
        """Show a run that was offered, in plain words."""
        sha256 = visit.request.path_params["sha256"]
        facts = await run_in_threadpool(request_of, self._path, sha256)
        return await self._shown(visit, "request.html", lambda: {"facts": facts, "digits": HASH_DIGITS})

    async def left(self, visit: Visit) -> Response:
        """Show everything that left."""

        def facts() -> dict[str, Any]:
            site = open_site(self._path)
            rows = egress_of(site)[::-1]
            shared = site.config.policy.share_metrics == "private"
            counts = shared or any(row["what"] == "validation" for row in rows)  # a policy changes, what left did not
            return {"rows": rows, "counts": counts, "no_privacy": site.ledger.account().infinite}

        return await self._shown(visit, "left.html", facts)

    async def partners(self, visit: Visit) -> Response:
        """Show the fingerprints that people compare."""

        def facts() -> dict[str, Any]:
            site = open_site(self._path)
            return {"own": own_fingerprint(site), "partners": partners_of(shared_runs(site.offers), site)}

        return await self._shown(visit, "partners.html", facts)

    async def events(self, visit: Visit) -> Response:
        """Tell the open pages when something has changed."""
        return news(visit, self._house.sessions, lambda: state_of(self._path, self._state), lambda: False)

    async def approve(self, visit: Visit) -> Response:
        """Approve a run, by the hash in the address; the form must have every tick, and begin the same hash."""
        request = await run_in_threadpool(request_of, self._path, visit.request.path_params["sha256"])
        require_agreement(request, visit.form)
        said = await run_in_threadpool(approve_run, request.run, request.run.study.name, self._path)
        return visit.then(said.splitlines()[0])

    async def decline(self, visit: Visit) -> Response:
        """Decline a run."""

        def work() -> str:
            return decline_run(self._path, find_run(open_site(self._path), visit.request.path_params["sha256"]))

        return visit.then(await run_in_threadpool(work))

    async def close(self, visit: Visit) -> Response:
        """End a study here."""
        if visit.form.get("sure") != "yes":
            raise InputError("the study was not ended: the box was not ticked")
        return visit.then(await run_in_threadpool(close_study, self._path, visit.request.path_params["study"]))

    async def pause(self, visit: Visit) -> Response:
        """Pause the client."""
        return visit.then(" ".join(await run_in_threadpool(pausing.pause, self._path)))

    async def resume(self, visit: Visit) -> Response:
        """Let the client answer again."""
        return visit.then(await run_in_threadpool(pausing.resume, self._path))

    async def end(self, visit: Visit) -> Response:
        """End the session, and with it the page."""
        self._house.sessions.end(visit.session)
        root = visit.request.scope.get("root_path", "")
        text = "The page has ended, and its link is void. You may close this window."
        return HTMLResponse(render("told.html", root, title="Ended", text=text, back=""))

    async def _shown(self, visit: Visit, template: str, facts: Callable[[], dict[str, Any]]) -> Response:
        def work() -> str:
            name, offers = load_site_config(self._path).institution.name, self._state / "offers"
            common = {"visit": visit, "institution": name, "shares": bool(shared_runs(offers))}
            idle = self._house.sessions.idle_seconds
            root = visit.request.scope.get("root_path", "")
            return render(template, root, _PACKAGE, **common, idle=idle, events=visit.path(EVENTS), **facts())

        answer = HTMLResponse(await run_in_threadpool(work))
        if "x-live" not in visit.request.headers:
            visit.session.said = ""
        return answer
