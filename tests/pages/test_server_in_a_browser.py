"""The server's page in a real browser: a run followed live to its end, an institution admitted, a run stopped."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.browser import Window, require_browser, window
from support.deployment import Deployment, deployed
from support.pages import Served, served
from support.server_pages import add_institutions, add_run, events_of, write_events
from support.sites import make_records

from confide.common.config.run import RunConfig, lock
from confide.common.pages.guard import House
from confide.server.daemon.logs import RecentLines
from confide.server.daemon.server_state import ServerState
from confide.server.home.home import init_home
from confide.server.home.queue import Queue
from confide.server.page.facts import Observer
from confide.server.page.pages import ServerPages

MakeRun = Callable[..., RunConfig]
_RUN = """
[study]
name = "small"
[model]
base = "{base}"
[adapter]
rank = 4
targets = ["query", "value"]
[task]
kind = "text-classification"
labels = ["negative", "positive"]
max_length = 64
[federation]
num_rounds = 4
min_clients = 2
[local]
nominal_units = 20
[privacy]
noise_multiplier = 4.0
"""


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


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    require_browser()
    with deployed(tmp_path) as deployment:
        yield deployment


def _link(deployment: Deployment) -> str:
    return deployment.confide("server", "page", "--home", "srv").strip()


def _propose(seen: Window, place: str, text: str, choice: str) -> None:
    seen.page.goto(f"{place}propose")
    seen.page.locator("#run").fill(text)
    seen.page.get_by_label(choice).check()
    if choice.startswith("Start it"):
        seen.page.get_by_label("To start it").check()
    seen.page.get_by_role("button", name="Go").click()


@pytest.mark.waits
def test_a_real_run_is_rehearsed_started_and_followed_to_its_end(
    deployment: Deployment, base_folder: Path, tmp_path: Path
) -> None:
    """A server and two clients as processes; all that the operator does is done in the browser."""
    deployment.start_server()
    for name in ("anne", "mary"):
        site = deployment.add(name, make_records(20))
        models = site.parent / "models"
        models.mkdir()
        (models / base_folder.name).symlink_to(base_folder)
        deployment.start_client(name)
    with window(tmp_path / "profile") as seen:
        place = seen.open(_link(deployment))
        seen.page.get_by_text("2 of 2 institutions connected.").wait_for()
        text = _RUN.format(base=base_folder)
        _propose(seen, place, text, "Rehearse it")
        seen.page.get_by_text("anne: answered").wait_for()
        seen.page.get_by_text("mary: answered").wait_for()
        _propose(seen, place, text, "Start it: it is offered")
        seen.page.get_by_text("The finished adapter is at").wait_for()
        seen.page.get_by_text("Round 4 of 4").wait_for()
        assert "4 of 4" in seen.page.locator("#institutions").inner_text()
        assert seen.hosts == {f"127.0.0.1:{deployment.admin_port}"}
        token = place.rstrip("/").rpartition("/")[2]
        assert token not in deployment.log("server"), "the way to the page stands in the log"
        assert seen.errors == []
