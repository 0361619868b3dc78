"""The server's page in a real browser: curves that move, and what everybody can read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import window
from support.pages import Served, served
from support.server_pages import add_institutions, add_run, events_of, write_events

from confide.common.config.run import RunConfig, lock
from confide.common.pages.guard import House
from confide.server.daemon.logs import RecentLines
from confide.server.daemon.server_state import ServerState
from confide.server.home.home import init_home
from confide.server.home.queue import Queue
from confide.server.page.facts import Observer
from confide.server.page.pages import ServerPages

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def shared(tmp_path: Path) -> ServerState:
    home = init_home(tmp_path / "srv", ["localhost"], 8443)
    return ServerState(home, Queue(home.folder / "queue"))


@pytest.fixture
def page(shared: ServerState) -> Iterator[Served]:
    def app(house: House) -> object:
        return ServerPages(shared, RecentLines(), house, Observer(shared)).app()

    with served(app) as page:
        yield page


@pytest.fixture
def run(make_run: MakeRun) -> RunConfig:
    sections = {"federation": {"num_rounds": 30}, "privacy": {"noise_multiplier": 4.0}}
    return lock(make_run(**sections), "ab" * 32)


def test_curves_move_as_rounds_end(shared: ServerState, page: Served, run: RunConfig, tmp_path: Path) -> None:
    names = add_institutions(shared.home, 5)
    queued = add_run(shared.home, shared.queue, run)
    folder, events = shared.home.runs / queued.name, events_of(names, 30)
    write_events(folder, events[:8])
    with window(tmp_path / "profile") as seen:
        seen.open(page.link())
        curve = seen.page.locator(".curve svg path.main").first
        seen.page.get_by_text("This page keeps itself up to date").wait_for()
        before = curve.get_attribute("d")
        write_events(folder, events[8:100])
        seen.page.get_by_text("round 14 of 30").first.wait_for(timeout=10_000)
        assert seen.page.locator(".curve svg path.main").first.get_attribute("d") != before
        seen.page.get_by_text("Epsilon so far").wait_for(timeout=20_000)
        assert seen.errors == []


def test_a_change_while_a_page_opens_is_seen(shared: ServerState, page: Served, tmp_path: Path) -> None:
    """The page is made, then something changes, then its stream begins: the stream itself sees no change."""
    with window(tmp_path / "profile") as seen:

        def late(route: Any) -> None:
            add_institutions(shared.home, 2)
            route.continue_()

        seen.page.route("**/events", late, times=1)
        seen.open(page.link())
        seen.page.get_by_text("0 of 2 institutions connected.").wait_for(timeout=10_000)


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(1100, "light"), *(pytest.param(*each, marks=pytest.mark.waits) for each in ((1100, "dark"), (390, "light")))],
)
def test_every_page_can_be_read_by_everybody(
    shared: ServerState, page: Served, run: RunConfig, tmp_path: Path, width: int, scheme: str
) -> None:
    names = add_institutions(shared.home, 50)
    queued = add_run(shared.home, shared.queue, run)
    write_events(shared.home.runs / queued.name, events_of(names, 20))
    with window(tmp_path / "profile", width=width, scheme=scheme) as seen:
        place = seen.open(page.link())
        for rest in ("", f"runs/{queued.name}", "propose", "admit", "logs"):
            seen.page.goto(place + rest)
            assert (rest, seen.complaints(), seen.is_too_wide()) == (rest, [], False)
        assert seen.errors == []
        assert seen.hosts == {page.url.removeprefix("http://")}
