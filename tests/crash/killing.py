"""Where and when a child process ends, by its own hand or by its parent's."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from confide.common import failpoints

# Places between two lines of the product that has no failpoint of its own: a row is on the disk and no witness knows
# of it; the anchor is written and the audit log is not.
BETWEEN = ("row-committed", "anchor-written")
ANY_MOMENT = "any moment"


@dataclass(frozen=True)
class Kill:
    """At the n-th time that a place is reached, or some seconds after a start or an ask."""

    place: str
    hit: int = 1
    seconds: float = 0.0


def choose_kill(random: Random, places: tuple[str, ...], longest: float) -> Kill:
    """One kill in six comes at any moment."""
    if random.random() < 1 / 6:
        return Kill(ANY_MOMENT, seconds=random.random() * longest)
    return Kill(random.choice(places), random.choice([1, 1, 1, 1, 2, 2, 3, 4]))


def arm(kill: Kill | None) -> Callable[[str], None]:
    """Make this process end itself, by a signal that nothing can catch; returns what stands for a failpoint."""
    hits = 0

    def action(name: str) -> None:
        nonlocal hits
        hits += bool(kill) and name == kill.place
        if kill and name == kill.place and hits == kill.hit:
            os.kill(os.getpid(), signal.SIGKILL)

    failpoints.action = action
    return action
