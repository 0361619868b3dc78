"""The process of an institution: what it says in its own log, and what it does with strange messages."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from support.https import UNUSABLE_PROXIES
from support.installations import Asking, kinds, write_site

from confide.client.service import process
from confide.client.service.process import _Answers
from confide.client.service.release_ticks import at_ticks
from confide.client.service.running import Status
from confide.client.site.enrolment import renew_keys
from confide.client.site.installation import open_site
from confide.client.steward.status import status_facts, status_text
from confide.common.config.run import RunConfig, lock
from confide.common.errors import InputError
from confide.common.model.base_models import hash_model
from confide.common.protocol.enrolment import Kit, write_json

MakeRun = Callable[..., RunConfig]


def _times(message: Message) -> tuple[float, float]:
    return message.metadata.created_at, message.metadata.ttl


@pytest.fixture
def asking(make_run: MakeRun, base_folder: Path, tmp_path: Path) -> Asking:
    run = lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))
    path = write_site(tmp_path, policy={"max_rounds": 1})
    return Asking(run, _Answers(path, open_site(path), Status(tmp_path / "state"))._current)


def test_a_server_of_another_version_is_a_line_in_log_and_refusals(
    asking: Asking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = asking.ask(0).content()
    content["ask"]["flwr"] = "1.40.0"
    with caplog.at_level(logging.INFO, "confide"):
        asking.send(content, "query.offer")
    [line] = [record.message for record in caplog.records if "1.40.0" in record.message]
    assert line.startswith("refused: the server runs confide")
    assert "flwr '1.40.0'" in (tmp_path / "state" / "refusals.jsonl").read_text(encoding="utf-8")


def _message(content: RecordDict, kind: str) -> Message:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    return Message(content, 7, kind, group_id="0")


def _ask_of(answers: _Answers, content: RecordDict, kind: str = "query.offer") -> str:
    """The kind of the reply of a client as a process."""
    return kinds(answers(_message(content, kind), Context(1, 7, {}, RecordDict(), {})).content)[0]


def test_the_reason_of_a_declined_offer_is_told_in_log_and_status(
    asking: Asking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has it once, the status until the offer is accepted."""
    path = tmp_path / "site.toml"
    answers = _Answers(path, open_site(path), Status(tmp_path / "state"))
    content, text = asking.ask(0).content(), path.read_text(encoding="utf-8")
    with caplog.at_level(logging.DEBUG):
        assert [_ask_of(answers, content) for _ in range(3)] == ["declined"] * 3
    [line] = [record.message for record in caplog.records if "max_rounds" in record.message]
    assert line.startswith("not done: federation.num_rounds = ")
    told = status_text(status_facts(path))
    assert "'query.offer', study 'test'\n  not done: federation.num_rounds = " in told
    assert "round" not in told.splitlines()[1]
    path.write_text(text.replace("max_rounds = 1", "max_rounds = 1000"), encoding="utf-8")
    assert _ask_of(answers, content) == "accepted"
    assert "not done" not in status_text(status_facts(path))


def test_what_an_offer_waits_for_is_told_with_the_command(
    asking: Asking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_site(tmp_path, policy={"require_approval": True})
    answers = _Answers(path, open_site(path), Status(tmp_path / "state"))
    assert _ask_of(answers, asking.ask(0).content()) == "waiting"
    command = "waits for approval: `confide client approve test`"
    assert command in caplog.text
    assert command in status_text(status_facts(path))


def test_an_error_that_may_quote_a_record_is_named_only(
    asking: Asking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A process's log goes to places that nobody thought of."""
    path = write_site(tmp_path)
    (tmp_path / "notes.jsonl").write_text('{"text": "CANARY" "label"', encoding="utf-8")
    answers = _Answers(path, open_site(path), Status(tmp_path / "state"))
    with caplog.at_level(logging.DEBUG):
        assert _ask_of(answers, asking.ask(0).content()) == "declined"
    told = status_text(status_facts(path))
    assert "not done: InputError: it may quote a record, so it stands in local/errors.log" in told
    assert "CANARY" not in told + caplog.text
    assert "not done: InputError" in caplog.text


def test_a_mistake_in_site_toml_is_a_refusal_at_every_ask_until_it_is_mended(asking: Asking, tmp_path: Path) -> None:
    path, refusals = tmp_path / "site.toml", tmp_path / "state" / "refusals.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("max_epsilon = 100.0", 'max_epsilon = "x"'), encoding="utf-8")
    for count in (1, 2):
        assert kinds(asking.offer()) == ["declined"]
        assert refusals.read_text(encoding="utf-8").count("policy.max_epsilon = 'x'") == count
    path.write_text(text.replace("max_rounds = 1", "max_rounds = 1000"), encoding="utf-8")
    assert kinds(asking.offer()) == ["accepted"]


def test_an_edit_of_site_toml_while_a_client_starts_counts(
    make_run: MakeRun, base_folder: Path, tmp_path: Path
) -> None:
    """After the site was opened, before the client looks for changes."""
    path = write_site(tmp_path)
    site = open_site(path)
    write_site(tmp_path, policy={"max_rounds": 1})
    run = lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))
    asking = Asking(run, _Answers(path, site, Status(tmp_path / "state"))._current)
    assert kinds(asking.offer()) == ["declined"]


@pytest.mark.parametrize("kind", ["query.bundle", "train.secagg", "evaluate.other", "query"])
def test_a_kind_of_message_that_is_none_of_ours_is_declined_and_ends_nothing(tmp_path: Path, kind: str) -> None:
    path = write_site(tmp_path)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = Message(RecordDict(), 7, kind)
    reply = _Answers(path, open_site(path), Status(tmp_path / "state"))(message, Context(1, 7, {}, RecordDict(), {}))
    assert kinds(reply.content) == ["declined"]
    assert _times(reply) == _times(message), "like every other refusal"


def test_an_ask_of_a_paused_client_is_declined_and_nothing_is_charged(
    make_run: MakeRun, base_folder: Path, tmp_path: Path
) -> None:
    """It came just before the client left; unanswered, it would hold its round until the deadline."""
    path, state = write_site(tmp_path), tmp_path / "state"
    answers = _Answers(path, open_site(path), Status(state))
    asking = Asking(lock(make_run(local={"nominal_units": 20}), hash_model(base_folder)), answers._current)
    paused = state / "paused"
    message = asking._grid.create_message(asking.ask(1).content(), "train", 1000, "1", ttl=600.0)
    for exists, expected in ((True, "declined"), (False, "update")):
        if exists:
            paused.touch()
        else:
            paused.unlink()
        reply = answers(message, Context(1, 7, {}, RecordDict(), {}))
        assert kinds(reply.content) == [expected]
        assert _times(reply) == _times(message), "paused looks like refused"
        assert bool(open_site(path).ledger.account().reservations) == (expected == "update")


def test_a_changed_least_tick_counts_from_the_next_ask_on(
    tmp_path: Path, make_run: Callable[..., RunConfig], base_folder: Path
) -> None:
    """What cannot be read counts as it was; where none is set every private run is refused, at a tick all the same."""
    path = write_site(tmp_path)
    answers = _Answers(path, open_site(path), Status(tmp_path / "state"))
    asking = Asking(lock(make_run(local={"nominal_units": 20}), hash_model(base_folder)), answers._current)
    message = asking._grid.create_message(asking.ask(0).content(), "query.offer", 1000, "1", ttl=600.0)
    for seconds, expected in ((50.0, 50.0), (70.0, 70.0), ("torn", 70.0), (None, 1.0)):
        write_site(tmp_path, policy={"min_release_seconds": seconds})
        reply = answers(message, Context(1, 7, {}, RecordDict(), {}))
        assert kinds(reply.content) == ["declined"], "the run's ticks are shorter"
        assert answers.least_tick() == expected
    write_site(tmp_path)
    assert kinds(answers(message, Context(1, 7, {}, RecordDict(), {})).content) == ["accepted"]


@pytest.mark.parametrize(("name", "value"), UNUSABLE_PROXIES)
def test_a_proxy_that_cannot_be_used_is_named_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="HTTPS_PROXY, ALL_PROXY or NO_PROXY cannot be used"):
        process.serve(write_site(tmp_path))


def test_an_error_instead_of_an_ask_is_declined_and_ends_nothing(tmp_path: Path) -> None:
    """Flower's messages may carry an error in place of a content; a server can send one."""
    path, stop = write_site(tmp_path), threading.Event()
    stop.set()  # no tick is waited for
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = Message(Error(0, "nothing"), reply_to=Message(RecordDict(), 7, "train"))
    answer = at_ticks(_Answers(path, open_site(path), Status(tmp_path / "state")), stop, lambda: 1.0)
    assert kinds(answer(message, Context(1, 7, {}, RecordDict(), {})).content) == ["declined"]


def test_a_client_uses_the_new_keys_that_came_while_it_waited_for_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would sign with the old identity otherwise, and every update would be dropped until the next start."""
    path, given = write_site(tmp_path), dict[str, Any]()
    old, kit = open_site(path), tmp_path / "state" / "kit.json"
    kit.write_text(write_json(Kit("old:8443", "ca", "st-mary", "0")), encoding="utf-8")

    @contextlib.contextmanager
    def only_client(state: Path) -> Iterator[None]:
        renew_keys(old.config)
        kit.write_text(write_json(Kit("new:8443", "ca", "st-mary", "1")), encoding="utf-8")
        yield

    def link(address: str, *rest: object) -> SimpleNamespace:
        return SimpleNamespace(run=lambda: given.update(address=address))

    monkeypatch.setattr(process, "only_client", only_client)
    monkeypatch.setattr(process, "Link", link)
    monkeypatch.setattr(
        process, "_Answers", lambda path, site, *rest: given.update(site=site) or SimpleNamespace(least_tick=float)
    )
    monkeypatch.setattr(process.signal, "signal", lambda *rest: None)
    process.serve(path)
    assert given["address"] == "new:8443"
    assert given["site"].identity.public_hex() == open_site(path).identity.public_hex() != old.identity.public_hex()


def test_a_client_that_joined_no_server_is_told_how(tmp_path: Path) -> None:
    path = write_site(tmp_path)
    for state in (r"state: No such file.*", "joined no server"):
        with pytest.raises(InputError, match=f"{state}.*`confide client join ADDRESS`"):
            process.serve(path)
        open_site(path)
