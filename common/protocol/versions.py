"""The check that both ends run the same versions of Confide and Flower; if not, each end says so and stops there."""

import functools
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from confide.common.errors import ConfideError
from confide.common.protocol.wire import MessageError

PROTOCOL = 3
_LONGEST = 40  # characters that are shown of a version that the other end claims


class VersionError(MessageError, ConfideError):
    """The other end runs other versions. They are public, and named on the wire and to the user of this end."""


def own_versions() -> dict[str, Any]:
    """Return the versions that both ends must share."""
    return {"protocol": PROTOCOL, **{name: _installed(name) for name in ("confide", "flwr")}}


@functools.cache  # reading it takes longer than all the rest of a message
def _installed(name: str) -> str:
    return importlib.metadata.version(name)


def require_same(theirs: Mapping[str, Any], who: str) -> None:
    """Raise `VersionError` if the other end, called ``who``, names other versions than ours, or none."""
    own = own_versions()
    if {name: theirs.get(name) for name in own} != own:
        raise VersionError(
            f"{who} runs {_told(theirs)}, this end {_told(own)}; both need the same: upgrade one of them"
        )


def other_versions() -> RecordDict:
    """Return the answer to an ask of other versions. Its form never changes, so that any version can read it."""
    return RecordDict({"version": ConfigRecord(own_versions())})


def _told(versions: Mapping[str, Any]) -> str:
    confide, flwr, protocol = (str(versions.get(name))[:_LONGEST] for name in ("confide", "flwr", "protocol"))
    return f"confide {confide!r} with flwr {flwr!r} (protocol {protocol!r})"
