"""An answer on its way to a server that fails: kept, sent again, and given up only for an ask that comes again."""

import threading
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from confide.client.link import Link, LinkLost
from confide.server.certificates import make_certificates
from confide.simulations.grid import InProcessGrid, SkippingClock


class Fleet:
    """A server that answers every push with the next of these HTTP statuses, 200 when there are no more."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses, self.taken = statuses, 0

    def PushMessages(self, request: Any) -> Any:
        status = self.statuses.pop(0) if self.statuses else 200
        answer = httpx.Response(status, request=httpx.Request("POST", "https://127.0.0.1/v1/fleet/push-messages"))
        answer.raise_for_status()
        self.taken += 1
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
    assert fleet.taken == 1


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
