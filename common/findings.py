"""The finding of a check: of a site (`confide client doctor`) or of a file (`confide data check`)."""

from dataclasses import dataclass
from typing import Literal

FindingState = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """The finding of one check.

    Attributes:
        subject: the thing that was checked.
        state: a warning is for a person to judge; with a problem a run would fail here.
        text: the fact, and the remedy.
    """

    subject: str
    state: FindingState
    text: str

    def line(self) -> str:
        """Return the finding as it is printed."""
        return f"{self.state:<8} {self.subject}: {self.text}"
