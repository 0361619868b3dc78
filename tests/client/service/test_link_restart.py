"""A server that has started anew: new node ids, and nobody who waits for an answer to an earlier ask."""

import threading
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from confide.client.service.link import Link
from confide.server.home.certificates import make_certificates


@pytest.fixture
def link(tmp_path_factory: pytest.TempPathFactory) -> Link:
    folder = tmp_path_factory.mktemp("authority")
    make_certificates(folder, ["127.0.0.1"])
    key = ec.generate_private_key(ec.SECP384R1())
    return Link("127.0.0.1:1", (folder / "ca.pem").read_bytes(), key, lambda ask, context: ask, threading.Event())


def _reply(node: int) -> Message:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    return Message(RecordDict(), reply_to=Message(RecordDict(), node, "train"))


@pytest.mark.parametrize(("node", "stays"), [(7, True), (8, False)])
def test_an_answer_is_kept_for_the_connection_it_was_asked_over(link: Link, node: int, stays: bool) -> None:
    link._kept = _reply(7)
    link._http = SimpleNamespace(ActivateNode=lambda request: SimpleNamespace(node_id=node))  # type: ignore[assignment]
    link._activate()
    assert (link._kept is not None) == stays, "it would be pushed for ever: the server knows no such run"
