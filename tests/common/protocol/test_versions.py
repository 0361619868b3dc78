"""Other versions of Confide or Flower are refused, and both ends say which."""

from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from confide.common.errors import ConfideError
from confide.common.protocol.answers import content_of
from confide.common.protocol.versions import VersionError, other_versions, own_versions, require_same
from confide.common.protocol.wire import MessageError


def test_the_same_versions_are_let_through() -> None:
    require_same({**own_versions(), "study": "any"}, "the server")


@pytest.mark.parametrize(("name", "value"), [("confide", "9.9"), ("flwr", "1.41.9"), ("protocol", 1), ("flwr", None)])
def test_other_versions_are_refused_and_both_are_named(name: str, value: Any) -> None:
    with pytest.raises(VersionError) as refused:
        require_same({**own_versions(), name: value}, "the server")
    assert f"{name} '{value}'" in str(refused.value)
    assert f"this end confide '{own_versions()['confide']}' with flwr '{own_versions()['flwr']}'" in str(refused.value)
    assert isinstance(refused.value, ConfideError), "so that it is a line among the refusals"


def test_what_the_other_end_claims_cannot_fill_a_log_or_drive_a_terminal() -> None:
    with pytest.raises(VersionError) as refused:
        require_same({"confide": "\x1b[2J\n" + "x" * 10_000, "flwr": b"\x00", "protocol": [1, 2]}, "the server")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


def _reply(content: RecordDict) -> Message:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # a Message needs them
    return Message(content, reply_to=Message(RecordDict(), 5, "train"))


def test_an_institution_s_versions_come_back_as_a_reason() -> None:
    content = other_versions()
    content["version"]["flwr"] = "1.40.0"
    with pytest.raises(VersionError, match=r"the institution runs .* flwr '1\.40\.0'"):
        content_of(_reply(content))
    with pytest.raises(MessageError):
        content_of(_reply(RecordDict({"version": ConfigRecord()})))
    assert list(content_of(_reply(RecordDict({"update": ConfigRecord()})))) == ["update"]
