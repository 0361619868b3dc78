"""Who has no session gets nothing: other users of the machine, stolen links, other sites, other names, frames."""

import asyncio
import errno
import os
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.responses import HTMLResponse, Response

from confide.common.errors import PolicyError
from confide.common.pages.guard import COOKIE, EVENTS, House, Page, Visit, pages_app
from confide.common.pages.serving import listen
from confide.common.pages.sessions import Session, Sessions, seconds

SELF = "http://127.0.0.1:8455"
OURS = {"origin": SELF, "sec-fetch-site": "same-origin"}


class Owner:
    """An application with one page and one form, and whoever asks it."""

    def __init__(self) -> None:
        self.now, self.done, self.uses = 0.0, list[str](), 0
        self.sessions = Sessions(60.0, lambda: self.now)
        pages = [
            Page("", self._page),
            Page("form", self._do, "POST"),
            Page("bad", self._fail),
            Page(EVENTS, self._page),
        ]
        self.app = pages_app(House(self.sessions, "Ask again.", self._used), pages)

    def _used(self) -> None:
        self.uses += 1

    async def _page(self, visit: Visit) -> Response:
        return HTMLResponse(f"secret {visit.path('x')}")

    async def _do(self, visit: Visit) -> Response:
        self.done.append(visit.form.get("text", ""))
        return visit.then("done")

    async def _fail(self, visit: Visit) -> Response:
        if "disk" in visit.request.query_params:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "queue/a-run.json")
        if visit.request.query_params:
            raise ValueError("secret")
        raise PolicyError("<script>alert(1)</script>\x1b[2J")

    def ask(self, path: str, method: str = "GET", host: str = "127.0.0.1:8455", **more: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=SELF) as web:
                return await web.request(method, path, headers={"host": host, **more.pop("headers", {})}, **more)

        return asyncio.run(call())

    def open(self) -> Session:
        """A session, as its owner's browser has it."""
        answer = self.ask(f"/open/{self.sessions.new_link()}")
        assert answer.status_code == 200
        place = re.findall(r'url=/([^/"]+)/"', answer.text)[0]
        found = self.sessions.find(place, answer.cookies[COOKIE])
        assert found
        return found

    def get(self, session: Session, path: str = "", **headers: str) -> httpx.Response:
        return self.ask(f"/{session.place}/{path}", headers={"cookie": f"{COOKIE}={session.cookie}", **OURS, **headers})

    def send(self, session: Session, form: dict[str, str], **headers: str) -> int:
        sent = {"cookie": f"{COOKIE}={session.cookie}", **OURS, **headers}
        sent = {name: value for name, value in sent.items() if value}
        return self.ask(f"/{session.place}/form", "POST", headers=sent, data=form).status_code


@pytest.fixture
def owner() -> Owner:
    return Owner()


def test_who_has_used_a_link_sees_the_page_and_sends_forms(owner: Owner) -> None:
    session = owner.open()
    assert owner.get(session).text.startswith("secret")
    assert owner.send(session, {"form": session.form, "text": "a"}) == 303
    assert owner.done == ["a"]
    assert owner.uses == 1


def test_a_full_disk_is_told_with_the_remedy(owner: Owner) -> None:
    answer = owner.get(owner.open(), "bad?disk")
    assert answer.status_code == 500
    assert "queue/a-run.json: No space left on device; mend it at this machine, then try again" in answer.text


def test_another_user_of_the_machine_sees_nothing(owner: Owner) -> None:
    """This user has no link, and knows neither place nor cookie; one of the two is not enough."""
    session, other = owner.open(), owner.open()
    for path, cookie in (
        ("/", ""),
        ("/open/", ""),
        ("/open/guess", ""),
        (f"/{session.place}/", ""),
        (f"/{session.place}/", "guess"),
        (f"/{session.place}/", other.cookie),
        (f"/{other.place}/", session.cookie),
        ("/guess/", session.cookie),
    ):
        answer = owner.ask(path, headers={"cookie": f"{COOKIE}={cookie}"} if cookie else {})
        assert (answer.status_code, "secret" in answer.text) == (403, False), path
    assert owner.uses == 2


def test_a_link_that_was_used_is_void(owner: Owner) -> None:
    token = owner.sessions.new_link()
    assert [owner.ask(f"/open/{token}").status_code for _ in range(3)] == [200, 403, 403]
    assert owner.uses == 1, "its owner is told of each use, once"


def test_a_preview_of_a_link_does_not_use_it_up(owner: Owner) -> None:
    token = owner.sessions.new_link()
    assert owner.ask(f"/open/{token}", "HEAD").status_code == 405
    assert owner.ask(f"/open/{token}").status_code == 200


def test_a_link_that_nobody_uses_ends(owner: Owner) -> None:
    token = owner.sessions.new_link()
    owner.now = 901.0
    assert owner.ask(f"/open/{token}").status_code == 403


def test_the_cookie_goes_to_this_place_alone_and_to_no_script(owner: Owner) -> None:
    """A browser sends cookies to every port of a host: without the path, any server on this machine would get it."""
    answer = owner.ask(f"/open/{owner.sessions.new_link()}")
    place = re.findall(r'url=(/[^"]+)"', answer.text)[0]
    parts = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")[1:]}
    assert len(place) > 40
    assert parts == {"httponly", "samesite=strict", f"path={place.lower()}"}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8455", "127.0.0.1.evil.example", "", "0.0.0.0:8455"])
def test_a_name_that_was_made_to_mean_this_machine_is_refused(owner: Owner, host: str) -> None:
    session = owner.open()
    cookie = {"cookie": f"{COOKIE}={session.cookie}"}
    for path in (f"/{session.place}/", "/style.css", f"/open/{owner.sessions.new_link()}"):
        assert owner.ask(path, host=host, headers=cookie).status_code == 421
    assert owner.ask(f"/{session.place}/", host="localhost:9999", headers=cookie).status_code == 200, "a tunnel"


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:9999", "http://localhost:8455", "null", ""]
)
def test_a_form_of_another_page_does_nothing_even_with_the_token(owner: Owner, origin: str) -> None:
    session = owner.open()
    assert owner.send(session, {"form": session.form}, origin=origin) == 403
    assert owner.done == []


def test_a_form_without_the_token_of_this_session_does_nothing(owner: Owner) -> None:
    session, other = owner.open(), owner.open()
    for form in ({}, {"form": ""}, {"form": "guess"}, {"form": other.form}, {"form": session.cookie}):
        assert owner.send(session, {"text": "x", **form}) == 403
    assert owner.done == []


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_no_other_site_asks_for_a_page_or_sends_a_form(owner: Owner, site: str) -> None:
    """Another port of this machine is the same site, though another origin."""
    session = owner.open()
    assert owner.get(session, **{"sec-fetch-site": site}).status_code == 403
    assert owner.send(session, {"form": session.form}, **{"sec-fetch-site": site}) == 403
    assert owner.done == []


def test_a_form_is_not_sent_by_get(owner: Owner) -> None:
    session = owner.open()
    assert owner.get(session, f"form?form={session.form}").status_code != 303
    assert owner.done == []


def test_a_form_that_is_too_long_is_not_read(owner: Owner) -> None:
    session = owner.open()
    assert owner.send(session, {"form": session.form, "text": "x" * 70_000}) == 403
    assert owner.done == []


def _answers(owner: Owner) -> list[httpx.Response]:
    session = owner.open()
    return [
        owner.get(session),
        owner.get(session, "bad"),
        owner.get(session, "bad?raise=1"),
        owner.get(session, "none"),
        owner.ask("/style.css"),
        owner.ask("/live.js"),
        owner.ask("/open/x"),
        owner.ask(f"/open/{owner.sessions.new_link()}"),
        owner.ask("/", host="evil.example"),
        owner.ask(f"/{session.place}/form", "POST"),
    ]


def test_every_answer_forbids_frames_foreign_scripts_referrers_and_copies(owner: Owner) -> None:
    answers = _answers(owner)
    assert {answer.status_code for answer in answers} == {200, 400, 500, 403, 421}
    for answer in answers:
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin", "our own paths go to no other host"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers


def test_what_others_wrote_is_shown_as_text(owner: Owner) -> None:
    told = owner.get(owner.open(), "bad").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[2J" in told
    assert "<script>alert" not in told


def test_an_error_of_ours_quotes_nothing(owner: Owner) -> None:
    answer = owner.get(owner.open(), "bad?raise=1")
    assert (answer.status_code, "secret" in answer.text) == (500, False)


def test_a_session_ends_when_a_person_leaves_it_alone(owner: Owner) -> None:
    """The page asks for its own news for ever: that is no person."""
    session = owner.open()
    for owner.now in (50.0, 100.0):
        assert owner.get(session).status_code == 200
    for owner.now in (130.0, 159.0):
        assert owner.get(session, **{"x-live": "1"}).status_code == 200
        assert owner.get(session, EVENTS).status_code == 200, "an EventSource connects anew by itself, without a header"
    owner.now = 161.0
    assert owner.get(session).status_code == 403


def test_the_time_that_a_laptop_sleeps_counts_as_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """time.monotonic stands still meanwhile; the clock since the boot goes on."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        pytest.skip("this system has no clock that counts sleep")
    slept = 0.0
    boot = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda clock: boot(clock) + slept * (clock == time.CLOCK_BOOTTIME))
    sessions, since = Sessions(60.0), seconds()
    token, session = sessions.new_link(), sessions.open(sessions.new_link())
    assert session
    assert sessions.find(session.place, session.cookie)
    slept = 1000.0
    assert sessions.find(session.place, session.cookie) is None
    assert sessions.open(token) is None, "the link has ended too"
    assert Sessions(60.0).is_left_alone(since)


def test_a_session_that_was_ended_sees_nothing(owner: Owner) -> None:
    session = owner.open()
    owner.sessions.end(session)
    assert owner.get(session).status_code == 403
    assert owner.sessions.is_left_alone(owner.now)


def test_another_process_knows_no_link_and_no_session(owner: Owner) -> None:
    token, session, later = owner.sessions.new_link(), owner.open(), Owner()
    assert later.ask(f"/open/{token}").status_code == 403
    assert later.get(session).status_code == 403


def test_old_links_and_sessions_make_room(owner: Owner) -> None:
    tokens = [owner.sessions.new_link() for _ in range(9)]
    assert [owner.ask(f"/open/{token}").status_code for token in tokens[:2]] == [403, 200]
    sessions = [owner.open() for _ in range(9)]
    assert [owner.get(session).status_code for session in (sessions[0], sessions[1])] == [403, 200]


def test_the_page_listens_on_loopback_alone() -> None:
    with listen(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_no_token_is_guessable() -> None:
    sessions = Sessions(60.0)
    drawn: list[Callable[[], str]] = [sessions.new_link, lambda: Session(0.0).place, lambda: Session(0.0).cookie]
    assert all(len({draw() for _ in range(50)}) == 50 and len(draw()) >= 43 for draw in drawn)  # 32 bytes
