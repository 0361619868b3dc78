"""The statements of a run's secure sums: one for a round, for ever, and on the disk before anybody sees it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from confide.common.durable import replace_durably
from confide.common.failpoints import failpoint
from confide.common.protocol.secure_sum import Statement
from confide.common.protocol.wire import MessageError


class Statements(Protocol):
    """A place that keeps the statement of each round."""

    def get(self, number: int) -> str | None:
        """Return the text of a round's statement; None if none was made."""

    def put(self, number: int, text: str) -> None:
        """Keep a round's statement. All of it is stored when this returns."""


@dataclass(frozen=True)
class MemoryStatements:
    """Statements in memory: of a simulation that cannot go on after a crash."""

    texts: dict[int, str] = field(default_factory=dict)

    def get(self, number: int) -> str | None:
        """Return a statement's text, or None."""
        return self.texts.get(number)

    def put(self, number: int, text: str) -> None:
        """Keep a statement."""
        self.texts[number] = text


@dataclass(frozen=True)
class FileStatements:
    """Statements as files ``NNNN.json`` in a folder, which auditors read (`confide verify`)."""

    folder: Path

    def get(self, number: int) -> str | None:
        """Return a statement's text, or None; an unreadable one is given as it is, and no institution takes it."""
        path = self.folder / f"{number:04d}.json"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None

    def put(self, number: int, text: str) -> None:
        """Keep a statement."""
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_durably(self.folder / f"{number:04d}.json", text.encode())
        failpoint("statement-written")

    def least_members(self) -> int | None:
        """Return the fewest members of any sum; None before the first. A damaged statement is left out."""
        numbers = [int(path.stem) for path in self.folder.glob("[!.]*.json") if path.stem.isdecimal()]
        return min((count for number in numbers if (count := _num_members(self.get(number) or ""))), default=None)


def _num_members(text: str) -> int:
    try:
        return len(Statement.from_text(text).members)
    except MessageError:
        return 0
