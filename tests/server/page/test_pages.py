"""The server's page: what the operator sees, and orders that do what the commands do."""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.pages import Local
from support.server_pages import add_institutions, add_run, events_of, write_events

from confide.common.cli.main import main
from confide.common.config.run import RunConfig, lock
from confide.common.errors import ConfideError, InputError
from confide.common.pages.guard import House
from confide.common.pages.sessions import Sessions
from confide.common.privacy.accounting import epsilon
from confide.common.protocol.enrolment import JoinRequest, read_kit, write_json
from confide.server.daemon.admin import admin_app
from confide.server.daemon.logs import RecentLines
from confide.server.daemon.server_state import ServerState
from confide.server.home import locking
from confide.server.home.home import Home, init_home
from confide.server.home.queue import Queue
from confide.server.page import pages
from confide.server.page.facts import Observer
from confide.server.page.once import Once
from confide.server.page.pages import ServerPages, page_routes

MakeRun = Callable[..., RunConfig]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return init_home(tmp_path / "srv", ["localhost"], 8443)


@pytest.fixture
def shared(home: Home) -> ServerState:
    return ServerState(home, Queue(home.folder / "queue"))


@pytest.fixture
def recent() -> RecentLines:
    return RecentLines()


@pytest.fixture
def operator(shared: ServerState, recent: RecentLines) -> Local:
    sessions = Sessions(60.0)
    observer = Observer(shared, lambda work: work())
    app = ServerPages(shared, recent, House(sessions, "Again."), observer).app()
    return Local(app, f"/open/{sessions.new_link()}")


@pytest.fixture
def run(make_run: MakeRun) -> RunConfig:
    return lock(make_run(federation={"num_rounds": 30}, privacy={"noise_multiplier": 4.0}), "ab" * 32)


def test_an_empty_server_is_shown(operator: Local) -> None:
    text = operator.get().text
    assert "0 of 0 institutions connected. No run is going on." in text
    assert "No institution is approved here yet." in text


def test_the_open_run_is_shown_with_rounds_institutions_and_epsilon(
    shared: ServerState, operator: Local, run: RunConfig
) -> None:
    names = add_institutions(shared.home, 3)
    queued = add_run(shared.home, shared.queue, run)
    write_events(shared.home.runs / queued.name, events_of(names, 8))
    text = " ".join(operator.get().text.split())
    assert "Run “test” is going on: round 8 of 30." in text
    assert "Confide 0.1.0, Flower 1.41.0" in text
    assert "8 of 8" in text
    assert "7 of 8" in text
    assert "round 7: no answer before the deadline" in text
    from confide.common.config.run import make_plan

    plan = make_plan(run, 20)
    assert f"Epsilon so far <strong>{epsilon(plan, 8):g}</strong> of {epsilon(plan):g}" in text  # type: ignore[arg-type]
    assert "accuracy 54.3%" in text


def test_rounds_are_read_as_they_are_written_and_a_cut_file_anew(
    shared: ServerState, operator: Local, run: RunConfig
) -> None:
    names = add_institutions(shared.home, 2)
    queued = add_run(shared.home, shared.queue, run)
    folder, events = shared.home.runs / queued.name, events_of(names, 9)
    cut = len(events_of(names, 5)) - 1  # the end of round 5
    write_events(folder, events[:cut])
    assert "round 4 of 30" in operator.get().text
    whole = json.dumps({"time": 1.0, **events[cut]})
    with (folder / "events.jsonl").open("a") as file:
        file.write(whole[:20])
        file.flush()
        assert "round 4 of 30" in operator.get().text, "a line that is being written is not read yet"
        file.write(f"{whole[20:]}\n")
    assert "round 5 of 30" in operator.get().text
    write_events(folder, events[cut + 1 :])
    assert "round 9 of 30" in operator.get().text
    (folder / "events.jsonl").unlink()
    write_events(folder, events_of(names, 2))
    assert "round 2 of 30" in operator.get().text


def test_stop_and_resume_are_those_of_the_commands(shared: ServerState, operator: Local, run: RunConfig) -> None:
    queued = add_run(shared.home, shared.queue, run)
    write_events(shared.home.runs / queued.name, events_of(["a"], 1))
    assert "it stops after its open round" in operator.post(f"runs/{queued.name}/stop", {}).text
    assert shared.stopping == queued.name
    operator.post(f"runs/{queued.name}/resume", {})
    assert shared.stopping is None
    assert operator.post("runs/none/stop", {}).status_code == 400


def _number(operator: Local) -> str:
    return operator.get("propose").text.split('name="number" value="')[1].split('"')[0]


def test_a_form_that_is_sent_twice_queues_one_run(
    shared: ServerState, operator: Local, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A double click sends it twice, and the browser shows the second answer."""
    monkeypatch.setattr(pages, "lock_run_in_child", lambda folder, file: run)
    form = {"run": "text", "kind": "run", "sure": "yes", "number": _number(operator)}
    answers = [operator.post("propose", form) for _ in range(3)]
    [queued] = shared.queue.all()
    assert {answer.text.count(queued.name) > 0 for answer in answers} == {True}
    operator.post("propose", {**form, "number": _number(operator)})
    assert len(shared.queue.all()) == 2
    assert operator.post("propose", {key: form[key] for key in ("run", "kind", "sure")}).status_code == 400


def test_two_requests_at_once_are_one_order_and_a_failed_one_may_be_repeated() -> None:
    calls: list[str] = []

    def order() -> str:
        time.sleep(0.05)
        calls.append("call")
        if len(calls) == 1:
            raise InputError("wrong")
        return f"run {len(calls)}"

    async def twice() -> list[str | BaseException]:
        once = Once()
        first = await asyncio.gather(*(once.ordered(("1", "text"), order) for _ in range(2)), return_exceptions=True)
        given_up = asyncio.ensure_future(once.ordered(("1", "text"), order))
        await asyncio.sleep(0.01)
        given_up.cancel()
        return [*first, await once.ordered(("1", "text"), order), await once.ordered(("1", "other"), order)]

    async def unheard() -> str:
        """The first browser is gone when its order fails; nobody is told the old reason afterwards."""
        once = Once()
        calls.clear()
        gone = asyncio.ensure_future(once.ordered(("1", "text"), order))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.2)
        return await once.ordered(("1", "text"), order)

    assert asyncio.run(unheard()) == "run 2"
    calls.clear()
    first, second, third, other = asyncio.run(twice())
    assert str(first) == str(second) == "wrong"
    assert (third, other) == ("run 2", "run 3")


def test_a_pasted_run_is_locked_and_queued(
    shared: ServerState, operator: Local, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def locked(folder: Path, file: Path) -> RunConfig:
        read.append(file.read_text())
        assert file.parent == folder == shared.home.folder
        return run

    monkeypatch.setattr(pages, "lock_run_in_child", locked)
    form = {"run": "text", "kind": "run", "number": _number(operator)}
    assert operator.post("propose", form).status_code == 400, "the box was not ticked"
    operator.post("propose", {**form, "sure": "yes"})
    operator.post("propose", {**form, "kind": "rehearsal"})
    assert read == ["text", "text"]
    assert [(queued.kind, queued.status) for queued in shared.queue.all()] == [
        ("run", "queued"),
        ("rehearsal", "queued"),
    ]
    assert sorted(path.suffix for path in shared.home.folder.iterdir() if path.suffix == ".toml") == [".toml"]


def test_a_run_that_is_wrong_is_refused_with_the_reason_and_no_file_name(
    shared: ServerState, operator: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "lock_run_in_child", locking.lock_run)
    form = {"run": "[privacy]\nnoise = 1\n", "kind": "rehearsal", "number": _number(operator)}
    answer = operator.post("propose", form)
    assert (answer.status_code, "the pasted run.toml" in answer.text) == (400, True)
    assert shared.queue.all() == []


def _request(name: str = "st-mary") -> JoinRequest:
    key = Ed25519PrivateKey.generate()
    unsigned = JoinRequest(name, "node key", key.public_key().public_bytes_raw().hex())
    return JoinRequest(name, "node key", unsigned.update_key, key.sign(unsigned.text().encode()).hex())


def test_an_institution_is_admitted_by_its_fingerprint_alone(
    shared: ServerState, operator: Local, tmp_path: Path
) -> None:
    asked = _request()
    form = {"request": write_json(asked), "fingerprint": asked.fingerprint()}
    for wrong in ({"fingerprint": ""}, {"fingerprint": "1234"}, {"request": "{}"}, {"fingerprint": "7e18-f737"}):
        assert operator.post("admit", {**form, **wrong}).status_code == 400
    assert shared.home.registry.approved() == {}
    answer = operator.post("admit", form)
    assert list(shared.home.registry.approved()) == ["st-mary"]
    text = answer.text.split('id="kit">')[1].split("</pre>")[0]
    (tmp_path / "kit.json").write_text(text.replace("&#34;", '"'))
    kit = read_kit(tmp_path / "kit.json")
    assert (kit.institution, kit.fingerprint) == ("st-mary", asked.fingerprint())
    assert "fingerprint of this server" in answer.text


def test_words_of_institutions_are_shown_as_text(shared: ServerState, operator: Local, run: RunConfig) -> None:
    evil = "<img src=x onerror=alert(1)>\x1b[2J"
    shared.home.registry.approve(JoinRequest(evil, "node", "cd" * 32))
    queued = add_run(shared.home, shared.queue, run)
    write_events(shared.home.runs / queued.name, events_of([evil], 7))
    shared.troubles["registry"] = evil
    text = operator.get().text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "<img" not in text
    assert "\x1b" not in text


def test_the_log_is_shown_and_holds_no_link(
    shared: ServerState, operator: Local, recent: RecentLines, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("confide.test_pages")
    logger.addHandler(recent)
    logger.warning("round 3: <b>late</b>")
    assert "round 3: &lt;b&gt;late&lt;/b&gt;" in operator.get("logs").text
    place = operator.place.strip("/")
    assert place not in caplog.text
    logger.removeHandler(recent)


def test_a_link_needs_the_token_and_the_page_needs_the_link(
    shared: ServerState,
    recent: RecentLines,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = admin_app(shared, page_routes(shared, recent))
    web = httpx.ASGITransport(app)

    async def answer(request: httpx.Request) -> httpx.Response:
        async with httpx.AsyncClient(transport=web) as client:
            got = await client.request(request.method, request.url, content=request.content, headers=request.headers)
            return httpx.Response(got.status_code, content=got.content, headers=got.headers.multi_items())

    transport, made = httpx.MockTransport(lambda request: asyncio.run(answer(request))), httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **settings: made(**settings, transport=transport))
    stranger = httpx.Client(base_url="http://127.0.0.1:8444")
    assert stranger.post("/page/links").status_code == 401
    assert stranger.post("/page/links", headers={"authorization": "Bearer x"}).status_code == 401
    assert stranger.get("/page/").status_code == 403
    monkeypatch.setattr(sys, "argv", ["confide", "server", "page", "--home", str(shared.home.folder)])
    with pytest.raises(SystemExit):
        main()
    url = capsys.readouterr().out.strip()
    assert url.startswith("http://127.0.0.1:8444/page/open/")
    opened = stranger.get(url)
    assert opened.status_code == 200
    [place] = [part.split('"')[0] for part in opened.text.split("url=")[1:]]
    assert place.startswith("/page/")
    assert f"path={place}" in opened.headers["set-cookie"].lower() or place in opened.headers["set-cookie"]
    assert stranger.get(place).status_code == 200
    assert stranger.get(url).status_code == 403


def test_the_status_of_a_run_that_cannot_be_read_is_told(shared: ServerState, operator: Local, run: RunConfig) -> None:
    queued = add_run(shared.home, shared.queue, run)
    write_events(shared.home.runs / queued.name, events_of(["a"], 1))
    (shared.home.folder / "queue" / f"{queued.name}.run").write_text("{}")
    answer = operator.get(f"runs/{queued.name}")
    assert (answer.status_code, "cannot be read" in answer.text) == (400, True)


def test_a_child_that_fails_tells_why(tmp_path: Path) -> None:
    with pytest.raises(ConfideError, match="is not a server's folder"):
        locking.lock_run(tmp_path, tmp_path / "run.toml")
