"""What a server may make a client take in: bounded in bytes and parts, and only from the server that was joined."""

import gzip
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse
from flwr.proto.message_pb2 import PullObjectRequest
from flwr.proto.node_pb2 import Node
from support.hostile_fleet import Answer, ask_of, handing_out, serving, whole
from support.https import make_keys, make_kit
from support.installations import kinds, write_site

from confide.client.service import intake
from confide.client.service.intake import TooMuchError
from confide.client.service.link import Link, LinkLost
from confide.client.service.probe import clock_ahead
from confide.client.service.process import _Answers
from confide.client.service.running import Status
from confide.client.site.installation import open_site
from confide.common.errors import ConfideError

KEY = ec.generate_private_key(ec.SECP384R1())
MOST, MAX_ELSE = 40_000, 10_000  # bytes, in these tests
Linked = Callable[[Callable[[str, bytes], Answer]], Link]


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(intake, "MAX_BYTES", MOST)
    monkeypatch.setattr(intake, "_MAX_ELSE", MAX_ELSE)
    return make_keys(tmp_path / "keys", "127.0.0.1")


def _link(keys: Path, port: int, answer: Any = None) -> Link:
    link = Link(f"127.0.0.1:{port}", (keys / "ca.pem").read_bytes(), KEY, answer, threading.Event())
    link._node = Node(node_id=7)
    return link


def _pull_part(link: Link) -> Any:
    return link._http.PullObject(PullObjectRequest(node=link._node, run_id=1, object_id="x"))


def _activate(link: Link) -> Any:
    return link._http.ActivateNode(ActivateNodeRequest(public_key=link._public_key, heartbeat_interval=10))


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_to_another_server_is_not_followed(keys: Path, status: int) -> None:
    """That one would see what the client signs, and could answer in the place of the one that was joined."""
    seen = list[str]()

    def other(path: str, body: bytes) -> Answer:
        seen.append(path)
        return whole(ActivateNodeResponse(node_id=666))

    def elsewhere(path: str, body: bytes) -> Answer:
        return status, {"location": f"https://127.0.0.1:{there}{path}", "content-length": "0"}, []

    with serving(keys, other) as there:
        link = _link(keys, there)
        assert _activate(link).node_id == 666, "or this server could not have been reached at all"
        seen.clear()
        with serving(keys, elsewhere) as here:
            link = _link(keys, here)
            with pytest.raises(httpx.HTTPStatusError, match=str(status)):
                _activate(link)
            with pytest.raises(LinkLost):
                link._pull()
    assert seen == []


def _endless(given: list[int]) -> Iterator[bytes]:
    while len(given) < 10_000:
        given.append(1)
        yield b"x" * 1000


@pytest.mark.parametrize(("call", "most"), [(_activate, MAX_ELSE), (_pull_part, MOST)])
def test_an_answer_without_an_end_is_left_where_it_passes_the_bound(
    keys: Path, call: Callable[[Link], Any], most: int
) -> None:
    given = list[int]()
    with (
        serving(keys, lambda path, body: (200, {}, _endless(given))) as port,
        pytest.raises(TooMuchError, match=f"more than {most:,} bytes"),
    ):
        call(_link(keys, port))
    assert len(given) < 10_000, "the server could go on to its end"


@pytest.mark.parametrize("announced", [str(MOST + 1), "9" * 20, str(2**62)])
def test_an_answer_that_announces_too_much_is_not_read(keys: Path, announced: str) -> None:
    with (
        serving(keys, lambda path, body: (200, {"content-length": announced}, [])) as port,
        pytest.raises(TooMuchError, match="announced"),
    ):
        _pull_part(_link(keys, port))


def test_an_answer_that_is_packed_is_not_unpacked(keys: Path) -> None:
    """A kilobyte of zeros is a megabyte, and a megabyte of them a gigabyte."""
    packed = gzip.compress(bytes(2**20))
    headers = {"content-encoding": "gzip", "content-length": str(len(packed))}
    with (
        serving(keys, lambda path, body: (200, headers, [packed])) as port,
        pytest.raises(TooMuchError, match="packed"),
    ):
        _pull_part(_link(keys, port))


def test_an_error_without_an_end_is_left_too(keys: Path) -> None:
    with serving(keys, lambda path, body: (500, {}, _endless([]))) as port, pytest.raises(TooMuchError):
        _activate(_link(keys, port))


def test_doctor_takes_in_no_more_than_the_client_does(keys: Path) -> None:
    given = list[int]()
    with (
        serving(keys, lambda path, body: (200, {}, _endless(given))) as port,
        pytest.raises(ConfideError, match=r"no connection .TooMuchError: more than 10,000 bytes"),
    ):
        clock_ahead(make_kit(keys, port))
    assert len(given) < 10_000


# A whole message


def _parts(count: int, size: int) -> RecordDict:
    """Each part below the bound."""
    return RecordDict({f"r{number}": ConfigRecord({"x": bytes([number]) * size}) for number in range(count)})


def test_an_honest_ask_comes_whole_again_and_again(keys: Path) -> None:
    content = _parts(2, 15_000)
    with serving(keys, handing_out(ask_of(content))) as port:
        link = _link(keys, port)
        for _ in range(3):
            pulled = link._pull()
            assert pulled is not None
            assert pulled.content == content


@pytest.mark.parametrize(("count", "size", "more"), [(3, 15_000, 0), (17, 1, 0), (1, 1, 5_000)])
def test_an_ask_that_is_too_large_or_has_too_many_parts_is_declined(
    keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, count: int, size: int, more: int
) -> None:
    """As an ask without a form is: at a tick, and uncharged. Were it dropped, it would come again and again."""
    path = write_site(tmp_path / "site")
    site, monitored = open_site(path), Status(tmp_path / "site" / "state")
    requested = list[str]()
    hand_out = handing_out(ask_of(_parts(count, size)), more_parts=min(more, 100))

    def answer(path: str, body: bytes) -> Answer:
        requested.append(path)
        return hand_out(path, body)

    with serving(keys, answer) as port, caplog.at_level(logging.INFO, "confide"):
        link = _link(keys, port)
        pulled = link._pull()
    assert pulled is not None
    assert list(pulled.content) == []
    assert len(requested) <= 1 + intake.MAX_PARTS
    [line] = [record.message for record in caplog.records]
    assert line.startswith("an ask is refused, and nothing of it kept: more than ")
    reply = _Answers(path, site, monitored)(pulled, Context(1, 7, {}, RecordDict(), {}))
    assert kinds(reply.content) == ["declined"]
    assert reply.metadata.reply_to_message_id == pulled.metadata.message_id
    assert site.ledger.rows() == []


# What a server's words may do to a log


def test_a_server_s_words_stay_on_one_short_line_of_the_log(
    keys: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, hostile = write_site(tmp_path / "site"), "\n2026-01-01 all is well\x1b[2J" + "x" * 10_000
    ask: Any = ask_of(RecordDict())
    ask.metadata.__dict__.update(_group_id=hostile, _message_type="query." + "x" * 10_000)
    assert ask.metadata.group_id == hostile
    site = open_site(path)
    answers = _Answers(path, site, Status(tmp_path / "site" / "state"))
    link = _link(keys, 1, answers)
    asks = [ask]

    def deliver(reply: Message) -> None:
        link._stop.set()

    link._pull = asks.pop  # type: ignore[method-assign]
    link._deliver = deliver  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO, "confide"):
        link._serve()
    lines = [record.message for record in caplog.records]
    assert len(lines) == 3, "as it comes, why not, and when it is answered"
    for line in lines:
        assert line.isprintable()
        assert len(line) < 200


def test_an_answer_that_is_no_http_is_told_in_one_short_line(
    keys: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the HTTP library says of it quotes what came."""
    answer: Answer = (200, {"bad header\x1b[2J": "x" * 50_000}, [])
    with serving(keys, lambda path, body: answer) as port, caplog.at_level(logging.INFO, "confide"):
        link = _link(keys, port)
        monkeypatch.setattr(link, "_pause", lambda seconds: link._stop.set())
        link._activate()
    [line] = [record.message for record in caplog.records]
    assert line.startswith("no connection (")
    assert line.isprintable()
    assert len(line) < 700
