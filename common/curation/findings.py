"""Findings of checks of data, and the places that they name."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from confide.common.curation.form import Seen
from confide.common.findings import Finding

_NAMED = 10  # places in a finding


class Check(Protocol):
    """One check of a file."""

    def see(self, seen: Seen) -> None:
        """Take one record."""

    def findings(self) -> Iterator[Finding]:
        """Yield what was found, after the last record."""


@dataclass
class Places:
    """Numbers of lines (of rows in a table): how many, and the first ten."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, number: int) -> None:
        """Count one more place."""
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(number)

    def __str__(self) -> str:
        """Return the places as a finding names them.

        >>> str(Places(12, [3, 5])), str(Places(1, [3]))
        ('12 records (at 3, 5, ...)', '1 record (at 3)')
        """
        more = ", ..." if self.count > len(self.first) else ""
        return f"{self.count} record{'s'[: self.count != 1]} (at {', '.join(map(str, self.first))}{more})"


def places_of(numbers: list[int]) -> Places:
    """Return numbers as places, in their order."""
    ordered = sorted(numbers)
    return Places(len(ordered), ordered[:_NAMED])
