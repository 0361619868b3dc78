"""The file of a ledger: SQLite, with the rows of all datasets. Only its owner may read it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confide.common.errors import ConfideError, LedgerError

_TABLE = """
CREATE TABLE IF NOT EXISTS rows(dataset TEXT, number INTEGER, hash TEXT, body TEXT, PRIMARY KEY(dataset, number))
"""


class Database:
    """One open ledger.db.

    Guarantee: a transaction returns when the disk has its rows (synchronous=FULL).

    Args:
        path: of ledger.db on a local disk, or ":memory:".

    Raises:
        LedgerError: the file is not a ledger.
        ConfideError: the file cannot be opened or written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        with self.readable():
            keep_private(path)
            self.connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=FULL")
            self.connection.execute(_TABLE)

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turn errors of SQLite into ours."""
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.IntegrityError, OSError) as error:
            raise ConfideError(
                f"{self.path}: the ledger cannot be used: {error}; nothing was charged by this"
            ) from None
        except sqlite3.DatabaseError as error:
            raise LedgerError(
                f"{self.path}: not a ledger, or a damaged one: {error}; put back the intact file"
            ) from None


def keep_private(path: Path | str) -> None:
    """Make a database file that only its owner may read, before SQLite makes one that others may read."""
    if isinstance(path, Path):
        path.touch(mode=0o600)
