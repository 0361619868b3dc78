"""Named places at which a test can end the process: every step of the release protocol and of a checkpoint.

Nothing in an installed product sets `action`. A crash test sets it, in Python, in its own process.
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
OF_A_SUM = (  # in the order in which a share passes them, among those above
    "share-written",
    "before-release",
    "after-release",
    "sum-written",
    "share-forgotten",
)
OF_A_CHECKPOINT = (  # in the order in which a checkpoint passes them
    "checkpoint-begun",
    "checkpoint-written",
    "checkpoint-removed",
    "checkpoint-renamed",
    "checkpoint-synced",
    "checkpoint-kept",
)
OF_A_STATEMENT = ("statement-written",)


def _nothing(name: str) -> None:
    """Do nothing: the action at a failpoint unless a test sets another."""


action: Callable[[str], None] = _nothing


def failpoint(name: str) -> None:
    """Mark a place; see `NAMES`, `OF_A_SUM`, `OF_A_CHECKPOINT` and `OF_A_STATEMENT`."""
    action(name)
