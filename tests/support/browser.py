"""Debian's Chromium, without a window, driven by Playwright."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

_QUIET = "disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync"
_AXE = """axe.run().then(found => JSON.stringify(found.violations.map(each =>
    [each.impact, each.id, each.nodes.map(node => node.target.join(" "))])))"""


class Window:
    """One page of a browser.

    Attributes:
        page: Playwright's.
        hosts: every host and port that the page asked for anything.
        errors: what the browser complained of, such as a script that the page's own policy forbids.
    """

    def __init__(self, context: Any) -> None:
        self.page, self.hosts, self.errors = context.new_page(), set[str](), list[str]()
        self.page.set_default_timeout(180_000)  # a first request waits until torch is read
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, link: str) -> str:
        """Use a one-time link; return the address of the first page."""
        self.page.goto(link)
        self.page.wait_for_url(lambda url: "/open/" not in url)
        self.page.wait_for_load_state()
        return str(self.page.url)

    def complaints(self) -> list[Any]:
        """Return what axe-core finds, but for minor matters: impact, rule, places."""
        tools = self.page.context.new_cdp_session(self.page)  # past the page's own policy, which forbids its script
        axe = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
        tools.send("Runtime.evaluate", {"expression": axe})
        asked = {"expression": _AXE, "awaitPromise": True, "returnByValue": True}
        found = json.loads(tools.send("Runtime.evaluate", asked)["result"]["value"])
        return [each for each in found if each[0] != "minor"]

    def is_too_wide(self) -> bool:
        """Return whether a person has to scroll sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def require_browser() -> None:
    """Skip where Playwright or Chromium is absent; fail if the environment says that there has to be one."""
    leave_out = pytest.fail if os.environ.get("CONFIDE_NEED_BROWSER") else pytest.skip
    if not find_spec("playwright"):
        leave_out("no Playwright: `make setup` installs it")
    if not shutil.which("chromium"):
        leave_out("no Chromium: `apt-get install --no-install-recommends chromium` (Debian), or as your system has it")


@contextmanager
def window(folder: Path, *, width: int = 1100, scheme: str = "light") -> Iterator[Window]:
    """A window of a browser with an empty profile."""
    require_browser()
    from playwright.sync_api import sync_playwright

    arguments = [f"--{name}" for name in ("no-sandbox", *_QUIET.split())]
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder,
            executable_path=shutil.which("chromium"),
            args=arguments,
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
        )
        try:
            yield Window(context)
        finally:
            context.close()
