"""A check that the installed Flower packs messages as the link expects, for `confide client doctor`."""

import time
from importlib.metadata import version
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as PackedMessage
from flwr.proto.message_pb2 import Metadata
from flwr.proto.recorddict_pb2 import RecordDict as Empty
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from confide.common.errors import ConfideError

_TEXT = "an answer"


def require_flower() -> None:
    """Check that a message survives the way on which the link sends and receives one.

    Raises:
        ConfideError: it does not, with this version of Flower.
    """
    try:
        unchanged = _pack_and_unpack() == _TEXT
    except Exception as error:
        raise _unfit(f"{type(error).__name__}: {error}") from error
    if not unchanged:
        raise _unfit("a message changes on its way")


def _pack_and_unpack() -> object:
    """Answer an ask, pack the reply, and return the text that the other end reads."""
    facts = Metadata(run_id=1, dst_node_id=1, message_type="train", created_at=time.time(), ttl=60.0)
    ask = message_from_proto(PackedMessage(metadata=facts, content=Empty()))
    reply = Message(RecordDict({"update": ConfigRecord({"text": _TEXT})}), reply_to=ask)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    message_to_proto(remove_content_from_message(reply))
    parts, tree = get_all_nested_objects(reply), get_object_tree(reply)
    contents = {part.object_id: parts[part.object_id].deflate() for part in iterate_object_tree(tree)}
    unpacked: Any = inflate_object_from_contents(tree.object_id, contents)
    return unpacked.content["update"]["text"]


def _unfit(reason: str) -> ConfideError:
    return ConfideError(
        f"Flower {version('flwr')} does not work as this client needs it: {reason}; pip install 'flwr>=1.41,<1.43'"
    )
