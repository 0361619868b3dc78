"""What a client tells of itself on the disk, and that it is the only one there."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from support.https import make_keys, make_kit
from support.installations import write_site
from support.ledgers import PLAN

from confide.client.privacy.account import AnswerKey
from confide.client.privacy.policy import cap_of
from confide.client.service import process, running
from confide.client.service.link import Link
from confide.client.service.running import Status, client_pid, only_client, read_status
from confide.client.site.enrolment import node_key
from confide.client.site.installation import Site, open_site
from confide.client.steward.ledger_report import ledger_facts
from confide.client.steward.status import status_facts, status_text
from confide.common.errors import ConfideError
from confide.common.protocol.enrolment import write_json

_HOLD = """
import sys
from pathlib import Path
from confide.client.service.running import only_client
with only_client(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_site(tmp_path)


@pytest.fixture
def site(path: Path) -> Site:
    return open_site(path)


@pytest.fixture
def state(site: Site) -> Path:
    return site.config.state.dir


# The only one


def test_a_second_client_on_one_state_folder_is_refused(
    path: Path, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal names the process of the first."""
    monkeypatch.setattr(process, "Link", None)  # nothing is called
    (state / "kit.json").write_text(write_json(make_kit(make_keys(tmp_path / "keys", "x"), 1)), encoding="utf-8")
    with only_client(state):
        with pytest.raises(ConfideError, match=f"process {os.getpid()}; stop that one first"):
            process.serve(path)
        assert not (state / "status.json").exists(), "the first one's account of itself is not overwritten"
    with only_client(state):
        pass


def test_the_lock_ends_with_its_process_however_that_ends(state: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert client_pid(state) == holder.pid
        with pytest.raises(ConfideError, match=f"process {holder.pid}"), only_client(state):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert client_pid(state) is None
    with only_client(state):
        assert client_pid(state) == os.getpid()


def test_other_commands_work_beside_a_running_client(path: Path, state: Path) -> None:
    with only_client(state):
        assert ledger_facts(path)["chain_ok"]
        assert status_facts(path)["running"]


def test_asking_whether_one_runs_keeps_none_from_starting(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refused = running.fcntl.flock, [BlockingIOError()]

    def flock(descriptor: int, kind: int) -> None:
        if refused:
            raise refused.pop()
        real(descriptor, kind)

    monkeypatch.setattr(running.fcntl, "flock", flock)
    with only_client(state):
        assert not refused


# What it tells


def test_before_anything_happened_there_is_nothing_to_tell(path: Path) -> None:
    facts = status_facts(path)
    assert facts == {
        "running": False,
        "pid": None,
        "since": None,
        "server": None,
        "connected": False,
        "paused": False,
        "last_ask": None,
        "studies_open": {},
        "shares_held": [],
        "last_egress": None,
    }
    assert status_text(facts) == "not running; no server joined yet"


def test_connection_pause_and_the_last_ask_are_told_while_it_runs_and_no_longer(path: Path, state: Path) -> None:
    with only_client(state):
        told = Status(state)
        assert not status_facts(path)["connected"]
        told.hear("connected")
        told.asked("train", {"study": "test", "round": 3, "adapter": b"x"})
        (state / "paused").touch()
        facts = status_facts(path)
        assert (facts["running"], facts["pid"], facts["connected"], facts["paused"]) == (True, os.getpid(), True, True)
        assert facts["last_ask"].items() >= {"study": "test", "round": 3, "what": "train"}.items()
        assert f"running since {facts['since']} (process {os.getpid()}), connected to no server" in status_text(facts)
        told.hear("lost")
        assert "NOT connected" in status_text(status_facts(path))
        told.hear("connected")
    facts = status_facts(path)
    assert (facts["running"], facts["connected"], facts["since"]) == (False, False, None)
    assert facts["last_ask"]["round"] == 3
    Status(state)
    assert read_status(state)["last_ask"]["round"] == 3, "a restart forgets no ask"
    assert stat.S_IMODE((state / "status.json").stat().st_mode) == 0o600


def test_only_a_change_is_written(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, written = Status(state), list[Path]()
    monkeypatch.setattr(running, "replace_durably", lambda path, *_: written.append(path))
    for news in ("lost", "connected", "connected", "connected", "lost"):
        told.hear(news)  # type: ignore[arg-type]
    assert len(written) == 2


@pytest.mark.parametrize(
    "record",
    [{}, {"study": 7, "round": "x"}, {"study": "\x1b[2J" + "x" * 1000, "round": 1}, {"study": b"\xff", "round": [1]}],
)
def test_what_a_server_says_cannot_hurt_a_terminal_or_the_client(
    record: dict[str, Any], path: Path, state: Path
) -> None:
    Status(state).asked("train" + "\n" * 100, record)
    text = status_text(status_facts(path))
    assert len(text.splitlines()) == 2
    assert len(text) < 300
    assert text.replace("\n", "").isprintable()


def test_a_full_disk_does_not_stop_the_client(
    state: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(running, "replace_durably", full)
    Status(state).hear("connected")
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff"])
def test_a_torn_file_is_no_news(path: Path, state: Path, content: bytes) -> None:
    (state / "status.json").write_bytes(content)
    assert status_facts(path)["last_ask"] is None


def test_studies_rounds_and_egress_come_from_the_ledger(path: Path, site: Site) -> None:
    cap = cap_of(site.config.policy)
    for study in ("test", "small"):
        site.ledger.open_study(study, PLAN, cap)
    for lineage, number, what in (("a", 1, "update"), ("a", 2, "update"), ("b", 1, "update"), ("a", 2, "validation")):
        charge = (1, 0) if what == "update" else (0, 0)
        facts = {"input_sha256": "i", "run_sha256": "r", "coins": "test"}
        reservation = site.ledger.reserve(AnswerKey("test", lineage, what, number), charge, cap, facts)  # type: ignore[arg-type]
        site.ledger.seal(reservation, "ab" * 32, 1234)
    site.ledger.close("small")
    facts = status_facts(path)
    assert facts["studies_open"] == {"test": {"rounds_answered": 3}}
    assert facts["last_egress"]["what"] == "validation"
    text = status_text(facts)
    assert "study test: open, 3 rounds answered" in text
    assert "round 2 validation, 1,234 bytes" in text
    json.dumps(facts)


class _Server:
    """Lets a node in, and is gone when it asks for work; after the second time it stops the link."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop, self._activations = stop, 0

    def ActivateNode(self, _: object) -> SimpleNamespace:
        self._activations += 1
        if self._activations == 2:
            self._stop.set()
        return SimpleNamespace(node_id=1)

    def PullMessages(self, _: object) -> None:
        raise httpx.ConnectError("gone")

    def DeactivateNode(self, _: object) -> None:
        """Nothing."""


def test_the_link_tells_of_every_connection_and_of_every_loss(tmp_path: Path, state: Path) -> None:
    kit, stop, told = make_kit(make_keys(tmp_path / "keys", "x"), 1), threading.Event(), list[str]()
    link = Link(kit.address, kit.ca.encode(), node_key(state), lambda ask, context: ask, stop)
    link._http = _Server(stop)  # type: ignore[assignment]
    link.tell = told.append  # type: ignore[assignment]
    link.run()
    assert told == ["connected", "lost", "connected"]


@pytest.mark.parametrize(
    ("content", "last"),
    [
        (RecordDict({"ask": ConfigRecord({"study": "reviews", "round": 3})}), ("reviews", 3)),
        (RecordDict({"done": ConfigRecord({"study": "reviews"})}), ("reviews", None)),
        (RecordDict({"ask": ArrayRecord()}), (None, None)),
        (RecordDict(), (None, None)),
    ],
)
def test_every_ask_is_told_before_it_is_answered(
    content: RecordDict, last: tuple[object, object], path: Path, site: Site, state: Path
) -> None:
    seen: list[tuple[object, object]] = []

    def answer(message: Message, context: object) -> Message:
        told = read_status(state)["last_ask"]
        seen.append((told["study"], told["round"]))
        return message

    answers = process._Answers(path, site, Status(state))
    answers._app = answer  # type: ignore[assignment]
    message = SimpleNamespace(
        content=content, has_content=lambda: True, metadata=SimpleNamespace(message_type="train", group_id="3")
    )
    answers(message, None)  # type: ignore[arg-type]
    assert seen == [last]
