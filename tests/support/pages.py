"""Pages on loopback for tests: served in a thread, asked by httpx or by a real browser."""

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


class Steward:
    """A browser without a window: it opens a link, keeps its cookie and knows the token of its forms."""

    def __init__(self, url: str, link: str) -> None:
        self.url, self.web = url, httpx.Client(base_url=url, trust_env=False, timeout=60)
        opened = self.web.get(link)
        found = re.search(r'url=(/[^"]+)"', opened.text)
        self.status, self.place = opened.status_code, found[1] if found else "/nowhere/"
        self.opened = opened

    def get(self, path: str = "", **headers: str) -> httpx.Response:
        """Ask for a page of the session."""
        return self.web.get(f"{self.place}{path}", headers=headers)

    def token(self) -> str:
        """Return the token that stands in the forms."""
        return re.findall(r'name="form" value="([^"]+)"', self.get().text)[0]

    def post(self, path: str, form: dict[str, str], **headers: str) -> httpx.Response:
        """Send a form as our own page would, but for the given headers."""
        sent = {"origin": self.url, "sec-fetch-site": "same-origin", **headers}
        return self.web.post(
            f"{self.place}{path}", data={"form": self.token(), **form}, headers=sent, follow_redirects=True
        )
