"""Pages on loopback for tests: served in a thread, asked by httpx or by a real browser."""

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from confide.client.page.institution import InstitutionPages
from confide.common.pages.guard import House
from confide.common.pages.serving import listen, serve_page
from confide.common.pages.sessions import Sessions

SELF = "http://127.0.0.1:8455"


@dataclass
class Served:
    """A page that is served.

    Attributes:
        url: of the server, without a path.
        sessions: its links and sessions.
    """

    url: str
    sessions: Sessions

    def link(self) -> str:
        """Return a new link."""
        return f"{self.url}/open/{self.sessions.new_link()}"


@contextlib.contextmanager
def served(make_app: Callable[[House], Any], idle_seconds: float = 1800.0) -> Iterator[Served]:
    """Serve an application of pages on a free port until the end."""
    sessions, listening = Sessions(idle_seconds), listen(0)
    thread = threading.Thread(target=serve_page, args=(make_app(House(sessions, "Ask again.")), listening, sessions))
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", sessions)
    finally:
        sessions.idle_seconds = -1.0  # every session has ended
        thread.join(timeout=20)


def served_institution(path: Path) -> contextlib.AbstractContextManager[Served]:
    """Serve the pages of a site.toml's institution."""
    return served(lambda house: InstitutionPages(path, house).app())


def local_institution(path: Path) -> "Local":
    """The pages of a site.toml's institution, asked without a port."""
    sessions = Sessions(1800.0)
    return Local(InstitutionPages(path, House(sessions, "Ask again.")).app(), f"/open/{sessions.new_link()}")


class Local:
    """A person at an application of pages: opens the link, keeps the cookie, knows the token of the forms."""

    def __init__(self, app: Any, link: str) -> None:
        asgi = httpx.ASGITransport(app, raise_app_exceptions=False)

        async def answer(request: httpx.Request) -> httpx.Response:
            async with httpx.AsyncClient(transport=asgi) as web:
                sent = request.content, request.headers
                got = await web.request(request.method, request.url, content=sent[0], headers=sent[1])
                return httpx.Response(got.status_code, content=got.content, headers=got.headers.multi_items())

        transport = httpx.MockTransport(lambda request: asyncio.run(answer(request)))
        self.web = httpx.Client(base_url=SELF, transport=transport)
        self.place, self._token = re.findall(r'url=(/[^"]+)"', self.web.get(link).text)[0], ""

    def get(self, path: str = "", **headers: str) -> httpx.Response:
        """Ask for a page of the session."""
        return self.web.get(f"{self.place}{path}", headers=headers)

    def token(self) -> str:
        """Return the token that stands in the forms."""
        if not self._token:
            self._token = re.findall(r'name="form" value="([^"]+)"', self.get().text)[0]
        return self._token

    def post(self, path: str, form: dict[str, str]) -> httpx.Response:
        """Send a form as our own page does; ``form`` may have another token. Follow to the page that comes then."""
        sent = {"origin": SELF, "sec-fetch-site": "same-origin"}
        data = {"form": self.token(), **form}
        return self.web.post(f"{self.place}{path}", data=data, headers=sent, follow_redirects=True)
