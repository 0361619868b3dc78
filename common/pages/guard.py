"""The web application around pages: one-time links, sessions, forms, and the headers of every answer.

The attackers, and the rule against each:

another user of the machine    has no link, and collects no cookie on another port (`sessions.Session.place`)
a link that was stolen         was used already, or its owner finds it used
a page of another site         its forms lack the token and have another Origin; the cookie is SameSite=Strict
a name that now means 127.0.0.1 (DNS rebinding)   is refused as Host
a frame around the page        frame-ancestors 'none'
text that a server chose       is escaped; no script runs but our own
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from confide.common.errors import ConfideError
from confide.common.pages.rendering import render
from confide.common.pages.sessions import Session, Sessions

COOKIE = "confide"
EVENTS = "events"  # the address of news: an EventSource asks for it anew by itself, and can send no header of ours
_HOSTS = ("127.0.0.1", "localhost")  # whatever the port: a tunnel may have another one
_MAX_FORM = 64 * 1024
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer a browser calls even our own forms' Origin "null"
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Visit:
    """One request of a session, after all checks.

    Attributes:
        request: as it came.
        session: whose request it is.
        form: the fields of a form, each with its last value.
    """

    request: Request
    session: Session
    form: Mapping[str, str] = field(default_factory=dict)

    def path(self, rest: str = "") -> str:
        """Return the path of a page of this session."""
        return f"{self.request.scope.get('root_path', '')}/{self.session.place}/{rest}"

    def then(self, said: str, rest: str = "") -> Response:
        """Return the answer to a form: another page, which says what was done."""
        self.session.said = said
        return RedirectResponse(self.path(rest), 303)


Handler = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True)
class Page:
    """One address of an application of pages.

    Attributes:
        path: below the session's place, as Starlette writes paths.
        handler: answers a visit.
        method: POST changes something, and needs a form of ours.
        max_form: the most bytes of a form.
    """

    path: str
    handler: Handler
    method: Literal["GET", "POST"] = "GET"
    max_form: int = _MAX_FORM


@dataclass(frozen=True)
class House:
    """The things that all pages of one application have in common.

    Attributes:
        sessions: its links and sessions.
        again: words on how to get another link.
        opened: called at each use of a link.
    """

    sessions: Sessions
    again: str
    opened: Callable[[], None] = lambda: None


def pages_app(house: House, pages: Sequence[Page]) -> Any:
    """Return the application: the pages for whoever has a session, and nothing for anyone else."""
    routes = [
        Route("/style.css", _file("style.css", "text/css")),
        Route("/live.js", _file("live.js", "text/javascript")),
        Route("/open/{token}", _opening(house), methods=["GET"]),
        *(Route(f"/{{place}}/{page.path}", _guarded(house, page), methods=[page.method]) for page in pages),
        Route("/{rest:path}", lambda request: _nothing(house, request)),
    ]
    return _with_headers(Starlette(routes=routes))


def _with_headers(app: Any) -> Any:
    """Wrap an application: hosts other than this machine get nothing, and every answer has the headers."""

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        name = Request(scope).headers.get("host", "").rpartition(":") if scope["type"] == "http" else ("", "", "")
        if scope["type"] == "http" and (name[0] or name[2]) not in _HOSTS:
            await Response("this page is for this machine alone\n", 421)(scope, receive, send_with_headers)
            return
        await app(scope, receive, send_with_headers)

    return guarded


def _opening(house: House) -> Any:
    async def opened(request: Request) -> Response:
        """Exchange a link for a cookie. HEAD, which a previewer of links may send, changes nothing."""
        if request.method != "GET":
            return Response(status_code=405)
        session = house.sessions.open(request.path_params["token"])
        if session is None:
            return _nothing(house, request)
        house.opened()
        place = Visit(request, session).path()
        # No redirect: after a click in another site's page the browser would hold the strict cookie back.
        answer = HTMLResponse(render("opened.html", request.scope.get("root_path", ""), place=place))
        answer.set_cookie(COOKIE, session.cookie, path=place, httponly=True, samesite="strict")
        return answer

    return opened


def _guarded(house: House, page: Page) -> Any:
    """Wrap a handler: it sees only requests of a session, and forms only of our own pages."""

    async def guarded(request: Request) -> Response:
        session = house.sessions.find(request.path_params["place"], request.cookies.get(COOKIE, ""))
        if session is None or request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return _nothing(house, request)
        visit = Visit(request, session)
        if page.method == "POST":
            body = await _body(request, page.max_form)
            if body is None or (form := _form(request, session, body)) is None:
                return told(visit, "This form did not come from this page, or is too long. Nothing was done.", 403)
            visit = Visit(request, session, form)
        if page.path != EVENTS and "x-live" not in request.headers:  # the page asks for its own news; a person did not
            house.sessions.touch(session)
        try:
            return await page.handler(visit)
        except ConfideError as error:
            return told(visit, str(error), 400)
        except OSError as error:
            text = f"{error.filename or 'a file'}: {error.strerror or error}; mend it at this machine, then try again"
            return told(visit, text, 500)

    return guarded


async def _body(request: Request, most: int) -> bytes | None:
    """Return the body; None if it is longer than ``most`` bytes."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > most:
            return None
    return body


def _form(request: Request, session: Session, body: bytes) -> dict[str, str] | None:
    """Return the fields of a form; None if another page sent it."""
    if request.headers.get("origin") != f"http://{request.headers['host']}":
        return None
    try:
        parsed = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=100)
    except ValueError:
        return None
    form = {name: values[-1] for name, values in parsed.items()}
    return form if hmac.compare_digest(form.get("form", "").encode(), session.form.encode()) else None


def told(visit: Visit, text: str, status: int) -> Response:
    """Return a page that says why something was not done."""
    root = visit.request.scope.get("root_path", "")
    return HTMLResponse(render("told.html", root, title="Not done", text=text, back=visit.path()), status)


def _nothing(house: House, request: Request) -> Response:
    text = f"There is nothing to see here without a link, and a link works once. {house.again}"
    root = request.scope.get("root_path", "")
    return HTMLResponse(render("told.html", root, title="No page", text=text, back=""), 403)


def _file(name: str, kind: str) -> Any:
    content = files("confide.common.pages").joinpath(name).read_bytes()

    async def given(request: Request) -> Response:
        return Response(content, media_type=kind)

    return given
