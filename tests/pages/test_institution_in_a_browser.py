"""The institution's page in a real browser: read, ticked, typed, clicked, and seen in the ledger."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.browser import Window, window
from support.installations import write_site
from support.pages import served_institution

from confide.client.answers.proposed_runs import keep_offer
from confide.client.privacy.policy import cap_of
from confide.client.site.installation import open_site
from confide.common.aloud import hash_start
from confide.common.config.run import RunConfig, lock, make_plan
from confide.common.model.base_models import hash_model

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    return lock(make_run(local={"nominal_units": 20}, federation={"num_rounds": 3}), hash_model(base_folder))


@pytest.fixture
def path(tmp_path: Path, run: RunConfig) -> Path:
    path = write_site(tmp_path / "here", policy={"require_approval": True, "max_epsilon": 20.0})
    keep_offer(open_site(path).offers, run)  # type: ignore[arg-type]
    return path


def _approve(seen: Window, run: RunConfig) -> None:
    page = seen.page
    page.get_by_role("link", name="Read what is asked").click()
    page.get_by_label("I know who asks").check()
    assert seen.complaints() == []
    page.get_by_label("I agree that this study").check()
    page.get_by_label("The first 20 digits").fill(run.sha256()[:20])
    page.get_by_role("button", name="Approve this run").click()


def test_an_approval_is_clicked_and_stands_in_the_ledger(path: Path, run: RunConfig, tmp_path: Path) -> None:
    """The short one: it runs wherever a browser is."""
    with served_institution(path) as served, window(tmp_path / "profile") as seen:
        seen.open(served.link())
        assert "1 request waits for your decision." in seen.page.content()
        _approve(seen, run)
        seen.page.get_by_text(f"study test, run {hash_start(run.sha256())}: approved").wait_for()
        assert "Nothing waits for your decision." in seen.page.content()
        assert open_site(path).ledger.account().approved == {("test", run.sha256())}
        assert seen.hosts == {served.url.removeprefix("http://")}, "the page asked another host"
        assert seen.errors == []
        assert seen.complaints() == []


@pytest.mark.waits
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (1100, "dark"), (390, "light")])
def test_every_page_can_be_read_by_everybody(
    path: Path, run: RunConfig, tmp_path: Path, width: int, scheme: str
) -> None:
    site = open_site(path)
    site.ledger.open_study("small", make_plan(run, 20), cap_of(site.config.policy))
    with served_institution(path) as served, window(tmp_path / "profile", width=width, scheme=scheme) as seen:
        place = seen.open(served.link())
        for rest in ("", f"requests/{run.sha256()}", "left", "partners"):
            seen.page.goto(place + rest)
            assert (rest, seen.complaints(), seen.is_too_wide()) == (rest, [], False)
        assert seen.errors == []


@pytest.mark.waits
def test_the_keyboard_alone_suffices_to_approve(path: Path, run: RunConfig, tmp_path: Path) -> None:
    with served_institution(path) as served, window(tmp_path / "profile") as seen:
        place, keyboard = seen.open(served.link()), seen.page.keyboard
        keyboard.press("Tab")
        assert seen.page.evaluate("document.activeElement.textContent") == "To the content"
        seen.page.goto(f"{place}requests/{run.sha256()}")
        for _ in range(60):
            keyboard.press("Tab")
            focus = seen.page.evaluate("[document.activeElement.type || '', document.activeElement.textContent]")
            if focus[0] == "checkbox":
                keyboard.press("Space")
            elif focus[0] == "text":
                keyboard.type(run.sha256()[:20])
            elif focus == ["submit", "Approve this run"]:
                keyboard.press("Enter")
                break
        seen.page.get_by_text(": approved").wait_for()
        assert open_site(path).ledger.account().approved


@pytest.mark.waits
def test_an_open_page_shows_a_new_request_by_itself(path: Path, run: RunConfig, tmp_path: Path) -> None:
    with served_institution(path) as served, window(tmp_path / "profile") as seen:
        seen.open(served.link())
        seen.page.get_by_text("This page keeps itself up to date").wait_for()
        other = run.model_copy(update={"study": run.study.model_copy(update={"name": "small"})})
        keep_offer(open_site(path).offers, other)  # type: ignore[arg-type]
        seen.page.get_by_text("2 requests wait for your decision.").wait_for(timeout=10_000)


def test_a_page_of_another_port_can_neither_frame_nor_drive_this_one(path: Path, tmp_path: Path) -> None:
    """The attacker is another user of the machine. Its page knows even our address and our token."""
    with served_institution(path) as ours, _hostile() as theirs, window(tmp_path / "profile") as seen:
        place = seen.open(ours.link())
        form = seen.page.locator("input[name=form]").first.get_attribute("value")
        seen.page.goto(f"{theirs.url}/?place={place}&form={form}")
        seen.page.get_by_text("the attack is over").wait_for(timeout=20_000)
        assert not (path.parent / "state" / "paused").exists()
        assert not any("privacy budget" in frame.content() for frame in seen.page.frames[1:])
        assert set(theirs.cookies) == {""}, "the cookie went to another port"


_ATTACK = b"""<!doctype html><title>x</title><body><script>
const told = new URLSearchParams(location.search), body = new URLSearchParams({form: told.get("form")});
const place = told.get("place"), [frame, form] = ["iframe", "form"].map(name => document.createElement(name));
Object.assign(frame, {name: "inside", src: place});
Object.assign(form, {method: "post", action: place + "pause", target: "inside"});
form.innerHTML = `<input name=form value="${told.get("form")}">`; document.body.append(frame, form);
fetch(place + "pause", {method: "POST", mode: "no-cors", credentials: "include", body}).catch(() => 0)
  .then(() => form.submit()).then(() => setTimeout(() => document.body.append("the attack is over"), 1500));
</script>"""


@contextmanager
def _hostile() -> Iterator[SimpleNamespace]:
    """A server on another port, which notes the cookies that it is shown."""
    cookies: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            cookies.append(self.headers.get("cookie", ""))
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(_ATTACK)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_address[1]}", cookies=cookies)
        server.shutdown()
