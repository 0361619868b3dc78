"""Reasons of an institution's refusals, in words that its own log and status may hold. None of them is ever sent."""

from flwr.app import Message

from confide.common.errors import BudgetError, LedgerError, PolicyError
from confide.common.protocol.answers import declined, waiting
from confide.common.protocol.gate import GateError
from confide.common.protocol.versions import other_versions
from confide.common.protocol.wire import MessageError

# They name settings, public numbers and the form of what a server sent, never records.
_WORDED = (PolicyError, BudgetError, LedgerError, MessageError, GateError)
_MAX_CHARS = 400
_REFUSALS = [list(answer()) for answer in (declined, waiting, other_versions)]


def reason_of(error: BaseException) -> str:
    """Return an error in one printable line. If it may quote a record, the line only points to its file.

    The log of a process can end up in unexpected places.
    """
    if not isinstance(error, _WORDED):
        return f"{type(error).__name__}: it may quote a record, so it stands in local/errors.log beside site.toml"
    line = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return line if len(line) <= _MAX_CHARS else f"{line[:_MAX_CHARS]}…"


def is_refusal(reply: Message) -> bool:
    """Return whether a reply says no, or not yet."""
    return reply.has_content() and list(reply.content) in _REFUSALS
