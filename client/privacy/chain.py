"""The hash chain of one dataset in a ledger, written by one transaction at a time."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confide.client.privacy.account import Account, LedgerRow
from confide.client.privacy.database import Database
from confide.client.privacy.row_kinds import add_row, canonical, hash_row
from confide.common.errors import LedgerError

_FIRST = "0" * 64  # the "previous" of a chain's first row
Witness = Callable[[LedgerRow, str], None]


class Chain:
    """The rows of one dataset, and their sum.

    Guarantee: `append` happens only inside `transaction`. A transaction sees every row that any process has committed,
    and returns when the disk has the new ones. A body is salted, so that its hash tells nothing.

    Args:
        database: the file; the chains of all its datasets share it.
        dataset: the id.
        witness: is given every new row and its hash after the commit.
    """

    def __init__(self, database: Database, dataset: str, witness: Witness) -> None:
        self.dataset, self.account, self._witness = dataset, Account(), witness
        self._database, self._db, self._new = database, database.connection, list[tuple[LedgerRow, str]]()
        self._others = dict[str, Chain]()

    @contextmanager
    def transaction(self) -> Iterator[Account]:
        """Give the current account and lock out other writers. Appended rows are all on the disk at the end, or none.

        Raises:
            LedgerError: the chain is broken.
            ConfideError: the disk does not take the rows; nothing was charged by this transaction.
        """
        with self._database.readable():
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

    def read_account(self) -> Account:
        """Return the sum of all rows so far; `LedgerError` if the chain is broken."""
        with self.transaction() as account:
            return account

    def others(self) -> list[Account]:
        """Return, inside a transaction, the accounts of all other datasets of this file, with every committed row."""
        for name in self.datasets():
            if name != self.dataset and name not in self._others:
                self._others[name] = Chain(self._database, name, self._witness)
        for chain in self._others.values():
            chain._catch_up()
        return [chain.account for chain in self._others.values()]

    def append(self, kind: str, values: LedgerRow) -> int:
        """Add a row inside a transaction. Return its number."""
        chain = {"number": self.account.number + 1, "previous": self.account.head or _FIRST, "kind": kind}
        row: LedgerRow = {**values, **chain, "salt": secrets.token_hex(16), "time": int(time.time())}
        row_hash = hash_row(row)
        self._new.append((row, row_hash))  # first: whatever fails from here on, the account is read anew
        add_row(self.account, row, row_hash)
        self._db.execute(
            "INSERT INTO rows VALUES (?, ?, ?, ?)", (self.dataset, row["number"], row_hash, canonical(row))
        )
        return int(row["number"])

    def rows(self) -> list[tuple[LedgerRow, str]]:
        """Return every row with its hash, in order."""
        with self._database.readable():
            return self._read(0)

    def knows(self, row_hash: str) -> bool:
        """Return whether any dataset of this file has a row with this hash."""
        with self._database.readable():
            return self._db.execute("SELECT 1 FROM rows WHERE hash = ?", (row_hash,)).fetchone() is not None

    def datasets(self) -> list[str]:
        """Return every dataset that has a row in this file."""
        with self._database.readable():
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
            f"{self._database.path}: the ledger of {self.dataset!r} was edited or cut: {why}; put back the intact file"
        )
