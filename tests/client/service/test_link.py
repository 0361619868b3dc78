"""An answer on its way to a server that fails: kept, sent again, and given up only for an ask that comes again."""

import threading
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from confide.client.service.link import Link, LinkLost
from confide.server.home.certificates import make_certificates
from confide.simulations.engines.grid import InProcessGrid, SkippingClock


class Fleet:
    """A server that answers every push with the next of these HTTP statuses, 200 when there are no more."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses, self.taken = statuses, list[Any]()

    def PushMessages(self, request: Any) -> Any:
        status = self.statuses.pop(0) if self.statuses else 200
        answer = httpx.Response(status, request=httpx.Request("POST", "https://127.0.0.1/v1/fleet/push-messages"))
        answer.raise_for_status()
        self.taken.append(request)
        return type("Response", (), {"session_id": "", "objects_to_push": []})()


@pytest.fixture
def link(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Link:
    """A client's link that waits for nothing."""
    make_certificates(tmp_path, ["127.0.0.1"])
    key = ec.generate_private_key(ec.SECP384R1())
    made = Link("127.0.0.1:1", (tmp_path / "ca.pem").read_bytes(), key, lambda *_: None, threading.Event())  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(made, "_pause", lambda seconds: None)
    return made


def _deliver(link: Link, fleet: Fleet) -> Message | None:
    """What the link still keeps after an attempt to deliver."""
    ask = InProcessGrid(ClientApp(), 1, SkippingClock()).create_message(RecordDict(), "train", 1000, "1", ttl=600.0)
    reply = Message(RecordDict({"update": ConfigRecord({"x": 1})}), reply_to=ask)
    link._http, link._kept = fleet, reply  # type: ignore[assignment]
    link._deliver(reply)
    return link._kept


def test_an_answer_is_sent_again_after_errors_of_the_server(link: Link) -> None:
    fleet = Fleet([500, 503, 500, 500])
    assert _deliver(link, fleet) is None
    assert len(fleet.taken) == 1


def test_an_answer_tells_no_time(link: Link) -> None:
    """Flower has a field for how long a client worked; ticks would hide nothing."""
    fleet = Fleet([])
    _deliver(link, fleet)
    assert [list(request.clientapp_runtime_list) for request in fleet.taken] == [[0.0]]


def test_a_server_that_never_takes_an_answer_is_met_anew_and_asks_again(link: Link) -> None:
    """Its link.db is another: it does not know the run of the answer. What is sealed costs nothing again."""
    fleet = Fleet([500] * 1000)
    with pytest.raises(LinkLost, match="500"):
        _deliver(link, fleet)
    assert link._kept is None, "or the same answer would block every later ask"
    assert len(fleet.statuses) > 900


def test_a_server_that_has_lost_the_connection_gets_the_answer_after_the_next(link: Link) -> None:
    with pytest.raises(LinkLost):
        _deliver(link, Fleet([401]))
    assert link._kept is not None


class Polled:
    """A server that takes so many seconds for each poll; the clock and the stop of its client.

    Attributes:
        pauses: seconds for which the client waited between polls, as it wanted.
    """

    def __init__(self, seconds: list[float], messages: list[Any] | None = None) -> None:
        self.seconds, self.messages, self.now, self.pauses = seconds, messages or [], 0.0, list[float]()

    def PullMessages(self, request: Any) -> Any:
        self.now += self.seconds.pop(0)
        return type("Response", (), {"messages_list": self.messages})()

    def monotonic(self) -> float:
        return self.now

    def is_set(self) -> bool:
        return not self.seconds

    def wait(self, pause: float) -> None:
        self.pauses.append(pause)
        self.now += max(0.0, pause)


def test_a_poll_that_was_held_is_repeated_at_once_and_a_quick_one_is_not(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a run goes on the polls begin 0.5 s apart at least, for an idle client 15 s."""
    polled = Polled([0.1, 5.0, 0.4, 16.0, 0.1, 5.0, 20.0])
    monkeypatch.setattr("confide.client.service.link.time", polled)
    link._http = link._stop = polled  # type: ignore[assignment]
    link._serve()
    assert [max(0.0, round(pause, 6)) for pause in polled.pauses] == [0.4, 0.0, 0.1, 0.0, 14.9, 10.0, 0.0]


def test_an_ask_that_comes_to_the_held_poll_of_an_ending_client_goes_back(link: Link) -> None:
    """To the server, which asks whoever connects anew."""
    polled = Polled([1.0], ["an ask"])
    link._http = polled  # type: ignore[assignment]
    link._stop.set()
    with pytest.raises(LinkLost, match="asks again"):
        link._pull()


class Doors:
    """A server that is connected to, polled, and left."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def ActivateNode(self, request: Any) -> Any:
        self.seen.append("comes")
        return type("Response", (), {"node_id": 7})()

    def DeactivateNode(self, request: Any) -> None:
        self.seen.append("goes")


@pytest.mark.parametrize("asked", [False, True])
def test_a_paused_client_answers_what_came_meanwhile_and_is_not_connected(
    link: Link, monkeypatch: pytest.MonkeyPatch, *, asked: bool
) -> None:
    """Connected, or gone with an ask in its hands, it would hold a round until its deadline."""
    doors, news, paused = Doors(), list[str](), [False, False, True, True, True, False, False, True]
    ask = InProcessGrid(ClientApp(), 1, SkippingClock()).create_message(RecordDict(), "train", 1000, "1", ttl=600.0)
    found = [None, ask, None, None, None] if asked else [None] * 4
    link._http, link.tell = doors, news.append  # type: ignore[assignment]

    def is_paused() -> bool:
        if not paused:
            link._stop.set()
            return True
        return paused.pop(0) if not (link._kept or doors.seen[-1:] == ["answers"]) else True

    def pull() -> Message | None:
        doors.seen.append("polls")
        return found.pop(0)

    def deliver(reply: Message) -> None:
        doors.seen.append("answers")
        link._kept = None

    link.is_paused = is_paused
    monkeypatch.setattr(link, "_pull", pull)
    monkeypatch.setattr(link, "_deliver", deliver)
    monkeypatch.setattr(link, "_answer_to", lambda ask, context: Message(RecordDict(), reply_to=ask))
    monkeypatch.setattr("confide.client.service.link._POLL_RUNNING", 0.0)
    link.run()
    last = ["polls", "answers", "polls", "goes"] if asked else ["polls", "goes"]
    assert doors.seen == ["comes", "polls", *last, "comes", "polls", "polls", "goes"]
    assert news == ["connected", "lost", "lost", "connected"]


class Broken(Doors):
    """A server that takes connections and fails every poll after so many seconds; the clock and stop of its client."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.now = seconds, 0.0

    def PullMessages(self, request: Any) -> Any:
        self.now += self.seconds
        raise httpx.ReadError("a proxy's 502")

    def monotonic(self) -> float:
        return self.now

    def is_set(self) -> bool:
        return self.now > 600 or len(self.seen) > 2000

    def wait(self, pause: float) -> None:
        self.now += pause


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 25), (61.0, 10)])
def test_a_server_that_fails_every_poll_is_met_ever_more_seldom(
    link: Link, monkeypatch: pytest.MonkeyPatch, seconds: float, most: int
) -> None:
    """In ten minutes; after a connection that lasted a minute the pause is a second again."""
    broken = Broken(seconds)
    monkeypatch.setattr("confide.client.service.link.time", broken)
    monkeypatch.setattr(link, "_pause", broken.wait)
    link._http = link._stop = broken  # type: ignore[assignment]
    link.run()
    met = broken.seen.count("comes")
    assert met <= most
    assert seconds == 0 or met == 10
