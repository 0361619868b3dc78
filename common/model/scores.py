"""Accuracy on public test shares, by institution. Free of torch: the server reads it too."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Accuracy:
    """The task's score on each institution's public test share, in [0, 1]."""

    per_institution: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean over institutions; each counts the same."""
        return sum(self.per_institution.values()) / len(self.per_institution)

    def as_json(self) -> dict[str, Any]:
        """Return ``{"mean": ..., "per_institution": {name: ...}}``."""
        return {"mean": self.mean, "per_institution": self.per_institution}
