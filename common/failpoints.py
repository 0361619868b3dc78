"""Named places at which a test can end the process: every arrow of the release protocol and of a checkpoint.

Nothing in an installed product sets `action`; a crash test's own process does, in Python.
"""

from collections.abc import Callable

NAMES = (
    "before-reserve",
    "after-reserve",
    "after-train",
    "outbox-written",
    "outbox-renamed",
    "before-seal",
    "after-seal",
    "before-send",
    "before-acknowledge",
    "after-acknowledge",
    "witness-written",
)
OF_A_SERVER = (  # in the order in which a checkpoint passes them
    "checkpoint-begun",
    "checkpoint-written",
    "checkpoint-removed",
    "checkpoint-renamed",
    "checkpoint-synced",
    "checkpoint-kept",
)


def _nothing(name: str) -> None:
    """What happens at a failpoint unless a test says otherwise."""


action: Callable[[str], None] = _nothing


def failpoint(name: str) -> None:
    """Mark a place; see `NAMES` and `OF_A_SERVER`."""
    action(name)
