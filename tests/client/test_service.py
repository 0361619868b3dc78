"""What the process that takes part does with a message, before any function of ours sees it."""

from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from support.installations import kinds, write_site

from confide.client.service import _Answers
from confide.client.site import open_site


@pytest.mark.parametrize("kind", ["query.bundle", "train.secagg", "evaluate.other", "query"])
def test_a_kind_of_message_that_is_none_of_ours_is_declined_and_ends_nothing(tmp_path: Path, kind: str) -> None:
    path = write_site(tmp_path)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    message = Message(RecordDict(), 7, kind)
    reply = _Answers(path, open_site(path))(message, Context(1, 7, {}, RecordDict(), {}))
    assert kinds(reply.content) == ["declined"]
