"""Why an institution declined, in the words that its own log and status may hold. None of it is ever sent."""

from flwr.app import Message

from confide.common.errors import BudgetError, LedgerError, PolicyError
from confide.common.protocol.answers import declined, waiting
from confide.common.protocol.versions import VersionError, other_versions

_WORDED = (PolicyError, BudgetError, LedgerError, VersionError)  # of settings and public numbers, never of records
_MOST_CHARS = 400
_REFUSALS = [list(answer()) for answer in (declined, waiting, other_versions)]


def reason_of(error: BaseException) -> str:
    """An error in one printable line; of one that may quote a record only where it lies.

    A process's log goes to places that nobody thought of.
    """
    if not isinstance(error, _WORDED):
        return f"{type(error).__name__}: it may quote a record, so it stands in local/errors.log beside site.toml"
    line = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return line if len(line) <= _MOST_CHARS else f"{line[:_MOST_CHARS]}…"


def is_refusal(reply: Message) -> bool:
    """Whether a reply says no, or not yet."""
    return reply.has_content() and list(reply.content) in _REFUSALS
