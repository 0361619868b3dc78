"""Whose people are whose: one person's records under two dataset ids would be charged to two budgets."""

import sqlite3
from pathlib import Path
from typing import Protocol

from confide.client.chain import keep_private
from confide.common.errors import ConfideError, LedgerError

_TABLE = "CREATE TABLE IF NOT EXISTS people(key BLOB PRIMARY KEY, dataset TEXT) WITHOUT ROWID"


class Claims(Protocol):
    """Who may use which people."""

    def of_others(self, dataset: str, keys: set[bytes]) -> set[bytes]:
        """Which of the keys are another dataset's; claims nothing."""

    def claim(self, dataset: str, keys: set[bytes]) -> set[bytes]:
        """Which of the keys are this dataset's: new ones become so, another dataset's stay that one's."""


class People:
    """Keyed names (HMAC) of units, each with the dataset that used it first in this state folder.

    A help against mistakes: another machine's folder is not seen, nor the same person's other records.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        try:
            keep_private(path)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(_TABLE)
        except sqlite3.Error as error:
            raise LedgerError(f"{path}: cannot be read: {error}; put back the intact file") from None

    def of_others(self, dataset: str, keys: set[bytes]) -> set[bytes]:
        """Which of the keys are another dataset's; claims nothing."""
        others = self._db.execute("SELECT key FROM people WHERE dataset <> ?", (dataset,)).fetchall()
        return keys & {key for (key,) in others}

    def claim(self, dataset: str, keys: set[bytes]) -> set[bytes]:
        """Which of the keys are this dataset's: new ones become so, another dataset's stay that one's."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR IGNORE INTO people VALUES (?, ?)", [(key, dataset) for key in sorted(keys)])
            mine = {key for (key,) in self._db.execute("SELECT key FROM people WHERE dataset = ?", (dataset,))}
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise ConfideError(f"{self._path}: cannot be written: {error}") from None
        return keys & mine
