"""A folder that the worker processes of one machine share: an institution's next answer may be any worker's."""

from dataclasses import dataclass
from pathlib import Path

from confide.client.privacy.account import LedgerRow
from confide.client.privacy.database import Database
from confide.simulations.sites.unfinished import OpenRound


@dataclass(frozen=True)
class BetweenWorkers:
    """A folder of the run directory: ledgers in one file, and the answers and shares of the open round."""

    folder: Path

    def open_database(self) -> Database:
        """Return the database of all ledgers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return Database(self.folder / "ledger.db")

    def note(self, row: LedgerRow, row_hash: str) -> None:
        """Do nothing: the rows are in the database's file."""

    def outbox(self) -> OpenRound:
        """Return the outbox of the open round's answers."""
        return self._box("answers")

    def shares(self) -> OpenRound:
        """Return the held shares of the open round's secure sum."""
        return self._box("shares")

    def _box(self, name: str) -> OpenRound:
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        return OpenRound(self.folder / name)
