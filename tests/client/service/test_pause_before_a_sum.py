"""A client that is paused while the server asks for its share: `client resume` in time mends the round."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity
from support.hostile_sums import HONEST, HostileServer
from support.planting import require_caught

from confide.client.commands import cli
from confide.client.service import process
from confide.client.service.link import Link
from confide.client.service.running import Status
from confide.client.site.installation import open_site
from confide.common.config.run import RunConfig
from confide.common.protocol.answers import is_declined
from confide.common.protocol.sum_messages import ask_for_sum
from confide.server.home.certificates import make_certificates

NAME = HONEST[0]


class Doors:
    """A server with the ask for one sum, which it hands out once for each connection until it has an answer."""

    def __init__(self, server: HostileServer, number: int) -> None:
        server.collect(number)
        ask = ask_for_sum(server.asking[NAME].ask(number), server.statement(number), 1e11)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 7, 1
        self.message = Message(ask.content(), 7, "query.sum", group_id=str(number))
        self.has_asked, self.replies = True, list[Message]()

    def ActivateNode(self, request: Any) -> Any:
        self.has_asked = False
        return type("Response", (), {"node_id": 7})()

    def DeactivateNode(self, request: Any) -> None:
        """Take note of nothing."""

    def pull(self) -> Message | None:
        asks, self.has_asked = not (self.has_asked or self.replies), True
        return self.message if asks else None


def _link_to(doors: Doors, folder: Path, patch: pytest.MonkeyPatch) -> Link:
    """The link of an institution that is paused while its first poll is held, and resumed once it has left."""
    path, state, stop = folder / NAME / "site.toml", folder / NAME / "state", threading.Event()
    make_certificates(folder, ["127.0.0.1"])
    key, ca = ec.generate_private_key(ec.SECP384R1()), (folder / "ca.pem").read_bytes()
    link = Link("127.0.0.1:1", ca, key, process._Answers(path, open_site(path), Status(state)), stop)
    polls = list[str]()

    def pull() -> Message | None:
        polls.append("polls")
        if len(polls) == 1:
            cli.pause(path)
        return doors.pull()

    def deliver(reply: Message) -> None:
        doors.replies.append(reply)
        link._kept = None
        stop.set()

    def heard(news: str) -> None:
        if news == "lost" and (state / "paused").exists():
            cli.resume(path)

    link._http, link.is_paused, link.tell = doors, (state / "paused").exists, heard  # type: ignore[assignment]
    patch.setattr(link, "_pull", pull)
    patch.setattr(link, "_deliver", deliver)
    return link


def _sum_is_taken(server: HostileServer, numbers: list[int], patch: pytest.MonkeyPatch) -> None:
    number = numbers.pop(0)
    doors = Doors(server, number)
    _link_to(doors, server.folder, patch).run()
    [reply] = doors.replies
    assert not is_declined(reply.content)
    assert number in server.rows(NAME, "release")


def test_a_sum_asked_for_while_paused_is_taken_after_resume(
    tmp_path: Path,
    make_run: Callable[..., RunConfig],
    base_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An answer `declined` would void the round of all, and the server asks nobody again who declined."""
    check = partial(_sum_is_taken, HostileServer(tmp_path, make_run, base_folder, 3), [1, 2], monkeypatch)
    require_caught(monkeypatch, process, ('if message.metadata.message_type == "query.sum":', "if False:", check))
