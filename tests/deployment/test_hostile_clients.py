"""An approved institution that means no good: its update is dropped with a reason, and the run ends without it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from support.deployment import Deployment, deployed
from support.faults import begin, judge, rounds_charged, run_file
from support.hostile_client import HOSTILE, Eve, honest, raw_answer, scripted
from support.installations import start_state
from support.zygote import Zygote

from confide.client.service.link import Link
from confide.common.config.run import load_run
from confide.common.model.base_models import hash_model
from confide.common.protocol.signatures import Identity

_ROUND_OF = {name: number for number, name in enumerate(HOSTILE, start=2)}  # in round 1 it is honest
Events = list[dict[str, Any]]


def _eve(run: Path, base: Path) -> Eve:
    zeros = {name: np.zeros_like(value) for name, value in start_state(load_run(run)).items()}
    return Eve("eve", Identity(bytes(32)), hash_model(base), zeros)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote, base_folder: Path) -> Iterator[Events]:
    """What a server told of one run in which eve does something else in every round."""
    rounds = len(HOSTILE) + 2  # honest in the last, too
    with deployed(tmp_path_factory.mktemp("hostile"), zygote) as deployment:
        path = run_file(deployment.folder, base_folder, rounds=rounds)
        scripts = {1: honest, rounds: honest, **{_ROUND_OF[name]: script for name, (script, _) in HOSTILE.items()}}
        begin(deployment)
        with scripted(deployment, _eve(path, base_folder), scripts) as problems:
            run = deployment.propose(path)
            deployment.reaches(run, event="round_started", round=2)
            _send_a_gigabyte(deployment)
            _send_headers_without_end(deployment)
            deployment.reaches(run, event="given_out")
        assert problems == {}
        assert deployment.ended(run)["status"] == "completed"
        deployment.confide("verify", f"srv/runs/{run}")
        for name in ("mary", "jude"):
            assert rounds_charged(deployment, name) == list(range(1, rounds + 1))
        judge(deployment)
        yield deployment.events(run)


def test_an_honest_update_of_hers_is_taken(events: Events) -> None:
    taken = [event["round"] for event in events if event["event"] == "accepted" and event["institution"] == "eve"]
    assert taken == [1, len(HOSTILE) + 2]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_update_is_dropped_with_a_reason_and_the_others_count(events: Events, name: str) -> None:
    of_round = [event for event in events if event.get("round") == _ROUND_OF[name]]
    [dropped] = [event for event in of_round if event["event"] == "dropped"]
    assert dropped["institution"] == "eve"
    assert dropped["reason"].startswith(HOSTILE[name][1])
    accepted = {event["institution"] for event in of_round if event["event"] == "accepted"}
    assert accepted == {"mary", "jude"}


class _Half(Link):
    """Announces an answer to a round, sends the first of its objects, and hangs up."""

    def _push(self, reply: Message) -> bool:
        if reply.metadata.message_type != "train":
            return super()._push(reply)
        objects, run_id = get_all_nested_objects(reply), reply.metadata.run_id
        head = message_to_proto(remove_content_from_message(reply))
        tree = get_object_tree(reply)
        announced = PushMessagesRequest(node=self._node, messages_list=[head], message_object_trees=[tree])
        response = self._http.PushMessages(announced)
        first = response.objects_to_push[0]
        half = {"object_id": first, "object_content": objects[first].deflate()}
        self._http.PushObject(PushObjectRequest(node=self._node, run_id=run_id, session_id=response.session_id, **half))
        return True


@pytest.mark.waits
def test_half_a_reply_holds_nobody_up_beyond_the_deadline(deployment: Deployment, base_folder: Path) -> None:
    path = run_file(deployment.folder, base_folder, rounds=1, deadline=40.0)
    begin(deployment)
    with scripted(deployment, _eve(path, base_folder), {1: honest}, _Half) as problems:
        run = deployment.propose(path)
        assert deployment.reaches(run, event="given_out")
    assert problems == {}
    dropped = [event for event in deployment.events(run) if event["event"] == "dropped"]
    assert {(event["institution"], event["reason"]) for event in dropped} == {("eve", "no answer before the deadline")}
    assert rounds_charged(deployment, "mary") == [1]


def _send_a_gigabyte(deployment: Deployment) -> None:
    """Refused by its length before a byte of it was read; without a length, after the most that the server takes."""
    head = b"POST /v1/fleet/push-object HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-protobuf\r\n"
    sent = 0

    def chunks(frame: bytes) -> Iterator[bytes]:
        nonlocal sent
        while sent < 2**30:
            sent += 2**20
            yield frame

    assert b"413" in raw_answer(deployment, head + b"content-length: 1073741824\r\n\r\n", iter([]))
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    said = raw_answer(deployment, head + b"transfer-encoding: chunked\r\n\r\n", chunks(chunk))
    assert sent < 2**26, "the server went on reading"
    assert said == b"" or b"413" in said


def _send_headers_without_end(deployment: Deployment) -> None:
    """Of which the application never hears, and which the server must not keep."""
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        while sent < 2**30:
            sent += 2**16
            yield b"aa01:bb\r\n" * (2**16 // 9)

    said = raw_answer(deployment, b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\n", chunks())
    assert sent < 2**26, "the server went on reading"
    assert said == b"" or b"400" in said
