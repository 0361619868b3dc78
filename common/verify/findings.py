"""The findings of `confide verify`."""

from dataclasses import dataclass, field

TOLERANCE = 1 + 1e-9  # between two computations of one number; claims are rounded up to 4 digits anyway


@dataclass
class Item:
    """The findings on one institution's row, a run as a whole, or one ledger; ``epsilon`` is as computed here.

    A row whose plan shares noise has ``max_colluding``: its ``epsilon`` holds if at most so many of a sum's members
    collude, and ``epsilon_if_broken`` if all others do.
    """

    name: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    epsilon: float | None = None
    claimed: float | None = None
    delta: float | None = None
    epsilon_if_broken: float | None = None
    claimed_if_broken: float | None = None
    max_colluding: int | None = None
