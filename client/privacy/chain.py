"""The rows of a ledger on disk: SQLite, one hash chain for each dataset, written by one transaction at a time."""

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path

from confide.client.privacy.account import Account, LedgerRow
from confide.client.privacy.row_kinds import add_row, canonical, hash_row
from confide.common.errors import ConfideError, LedgerError

_TABLE = """
CREATE TABLE IF NOT EXISTS rows(dataset TEXT, number INTEGER, hash TEXT, body TEXT, PRIMARY KEY(dataset, number))
"""
_FIRST = "0" * 64  # the "previous" of a chain's first row
Witness = Callable[[LedgerRow, str], None]


class Chain:
    """The rows of one dataset, and their sum.

    Guarantee: `append` happens only inside `transaction`. A transaction sees every row that any process has committed,
    and returns when the disk has the new ones (synchronous=FULL). A body is salted, so that its hash tells nothing.

    Args:
        path: of ledger.db on a local disk, or ":memory:".
        dataset: the id.
        witness: is given every new row and its hash after the commit.

    Raises:
        LedgerError: the file is not a ledger, or its chain is broken.
    """

    def __init__(self, path: Path | str, dataset: str, witness: Witness) -> None:
        self.path, self.dataset, self.account = path, dataset, Account()
        self._witness, self._new = witness, list[tuple[LedgerRow, str]]()
        with self._readable():
            keep_private(path)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(_TABLE)

    def beside(self, dataset: str) -> "Chain":
        """The chain of another dataset in the same database, over the same connection."""
        other = copy(self)
        other.dataset, other.account, other._new = dataset, Account(), []
        return other

    @contextmanager
    def transaction(self) -> Iterator[Account]:
        """Give the current account and lock out other writers. Appended rows are all on the disk at the end, or none.

        Raises:
            LedgerError: the chain is broken.
            ConfideError: the disk does not take the rows; nothing was charged by this transaction.
        """
        with self._readable():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._catch_up()
                yield self.account
                self._db.execute("COMMIT")
            except BaseException:
                if self._new:
                    self.account, self._new = Account(), []  # it holds rows that were never committed: read anew
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        new, self._new = self._new, []
        for row, row_hash in new:
            self._witness(row, row_hash)

    def append(self, kind: str, values: LedgerRow) -> int:
        """Add a row inside a transaction. Return its number."""
        chain = {"number": self.account.number + 1, "previous": self.account.head or _FIRST, "kind": kind}
        row: LedgerRow = {**values, **chain, "salt": secrets.token_hex(16), "time": int(time.time())}
        row_hash = hash_row(row)
        add_row(self.account, row, row_hash)
        self._db.execute(
            "INSERT INTO rows VALUES (?, ?, ?, ?)", (self.dataset, row["number"], row_hash, canonical(row))
        )
        self._new.append((row, row_hash))
        return int(row["number"])

    def rows(self) -> list[tuple[LedgerRow, str]]:
        """Return every row with its hash, in order."""
        with self._readable():
            return self._read(0)

    def knows(self, row_hash: str) -> bool:
        """Return whether any dataset of this file has a row with this hash."""
        with self._readable():
            return self._db.execute("SELECT 1 FROM rows WHERE hash = ?", (row_hash,)).fetchone() is not None

    def datasets(self) -> list[str]:
        """Return every dataset that has a row in this file."""
        with self._readable():
            return [name for (name,) in self._db.execute("SELECT DISTINCT dataset FROM rows ORDER BY dataset")]

    def _catch_up(self) -> None:
        """Take in rows of other processes. A row that was removed since shows in the next one's ``previous``."""
        for row, row_hash in self._read(self.account.number):
            expected = (row_hash, self.account.head or _FIRST, self.account.number + 1)
            try:
                if (hash_row(row), row.get("previous"), row.get("number")) != expected:
                    raise self._damaged(f"row {self.account.number + 1} does not follow from the one before")
                add_row(self.account, row, row_hash)
            except (KeyError, ValueError, TypeError) as error:
                raise self._damaged(f"row {self.account.number + 1} is none of ours ({error!r})") from None

    def _read(self, after: int) -> list[tuple[LedgerRow, str]]:
        query = "SELECT hash, body FROM rows WHERE dataset = ? AND number > ? ORDER BY number"
        found = self._db.execute(query, (self.dataset, after)).fetchall()
        try:
            return [(dict(json.loads(body)), row_hash) for row_hash, body in found]
        except (ValueError, TypeError):
            raise self._damaged("a row is not JSON") from None

    def _damaged(self, why: str) -> LedgerError:
        return LedgerError(
            f"{self.path}: the ledger of {self.dataset!r} was edited or cut: {why}; put back the intact file"
        )

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn errors of the database into ours."""
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.IntegrityError, OSError) as error:
            raise ConfideError(
                f"{self.path}: the ledger cannot be written: {error}; nothing was charged by this"
            ) from None
        except sqlite3.DatabaseError as error:
            raise LedgerError(
                f"{self.path}: not a ledger, or a damaged one: {error}; put back the intact file"
            ) from None


def keep_private(path: Path | str) -> None:
    """Make a database file that only its owner may read, before SQLite makes one that others may read."""
    if isinstance(path, Path):
        path.touch(mode=0o600)
