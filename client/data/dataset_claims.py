"""Claims of dataset ids on people, so that one person is never charged to two budgets."""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from confide.client.privacy.database import keep_private
from confide.common.errors import ConfideError, LedgerError

_PEOPLE = "CREATE TABLE IF NOT EXISTS people(key BLOB PRIMARY KEY, dataset TEXT) WITHOUT ROWID"
# The same claims in their order, hash-chained: each row of a ledger keeps the `head` of the time it was written.
_CLAIMS = "CREATE TABLE IF NOT EXISTS claims(number INTEGER PRIMARY KEY, dataset TEXT, keys TEXT, head TEXT)"


class Names(NamedTuple):
    """Keyed names (HMAC) that recognise the person of a record in another dataset.

    Attributes:
        claimed: names that become the dataset's. The first is the person, who must be its own; the others are marks.
        barred: names that must not be another dataset's.
    """

    claimed: tuple[bytes, ...]
    barred: tuple[bytes, ...]


class Claims(Protocol):
    """Claims of datasets on people."""

    def claim_all(self, dataset: str, people: set[Names]) -> bool:
        """Claim all people, or none if one is another dataset's. Return whether all were claimed."""

    def claim(self, dataset: str, people: set[Names]) -> set[Names]:
        """Claim the people that no other dataset has. Return those that are this dataset's."""

    def elsewhere(self, dataset: str, people: set[Names]) -> set[Names]:
        """Return the people that are another dataset's, without a claim."""


class People:
    """Keyed names (HMAC) of units and of texts in groups, each with the dataset that first used it in this folder.

    This guards against mistakes. It sees neither another machine's folder nor the same person's other records.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = path
        try:
            keep_private(path)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA synchronous=EXTRA")  # FULL may lose the newest claim, whose row is on the disk
            self._db.execute(_PEOPLE)
            self._db.execute(_CLAIMS)
        except sqlite3.OperationalError as error:  # locked, or no room: the file is whole
            raise ConfideError(f"{path}: cannot be opened: {error}; nothing was claimed") from None
        except sqlite3.Error as error:
            raise LedgerError(f"{path}: cannot be read: {error}; put back the intact file") from None

    def claim_all(self, dataset: str, people: set[Names]) -> bool:
        """Claim all people, or none if one is another dataset's. Return whether all were claimed.

        Guarantee: of two datasets that claim the same people at once, one gets them.
        """
        with self._alone():
            own = self._own(dataset, people)
            if own == people:
                self._add(dataset, own)
            return own == people

    def claim(self, dataset: str, people: set[Names]) -> set[Names]:
        """Claim the people that no other dataset has. Return those that are this dataset's."""
        with self._alone():
            own = self._own(dataset, people)
            self._add(dataset, own)
            return own

    def elsewhere(self, dataset: str, people: set[Names]) -> set[Names]:
        """Return the people that are another dataset's, without a claim."""
        with self._alone():
            return people - self._own(dataset, people)

    def head(self) -> str:
        """Return the hash that stands for all claims so far; empty before the first."""
        try:
            return self._head()
        except sqlite3.Error as error:
            raise ConfideError(f"{self._path}: cannot be read: {error}") from None

    def heads(self) -> list[str]:
        """Return every `head` so far, from before the first claim to now. Chain claims of an earlier version first.

        Raises:
            LedgerError: the claims are not those that were made.
        """
        with self._alone():
            try:
                return self._checked()
            except (AttributeError, TypeError, ValueError):
                raise LedgerError(f"{self._path}: was edited or cut; put back the intact file") from None

    def _checked(self) -> list[str]:
        left, heads = dict(self._db.execute("SELECT key, dataset FROM people")), [""]
        for dataset, keys, head in self._db.execute("SELECT dataset, keys, head FROM claims ORDER BY number"):
            heads.append(_head_after(heads[-1], dataset, keys))
            if head != heads[-1] or any(left.pop(bytes.fromhex(key), None) != dataset for key in keys.split()):
                raise ValueError(head)
        for dataset in sorted(set(left.values())):
            self._note(dataset, [key for key, owner in left.items() if owner == dataset])
            heads.append(self._head())
        return heads

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold one transaction: no other process claims between the first read and the last claim."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise ConfideError(f"{self._path}: cannot be written: {error}") from None
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _own(self, dataset: str, people: set[Names]) -> set[Names]:
        """Return the people, without those whom one of their records shows to be another dataset's."""
        others = {key for (key,) in self._db.execute("SELECT key FROM people WHERE dataset <> ?", (dataset,))}
        elsewhere = {names.claimed[0] for names in people if not others.isdisjoint(names.barred)}
        return {names for names in people if names.claimed[0] not in elsewhere}

    def _add(self, dataset: str, people: set[Names]) -> None:
        # Only keys of the dataset's own people: a claim on another dataset's person would bar that person there, too.
        keys = sorted({key for names in people for key in names.claimed})
        insert = "INSERT OR IGNORE INTO people VALUES (?, ?)"
        new = [key for key in keys if self._db.execute(insert, (key, dataset)).rowcount]
        if new:
            self._note(dataset, new)

    def _note(self, dataset: str, new: list[bytes]) -> None:
        keys = " ".join(key.hex() for key in sorted(new))
        row = (dataset, keys, _head_after(self._head(), dataset, keys))
        self._db.execute("INSERT INTO claims(dataset, keys, head) VALUES (?, ?, ?)", row)

    def _head(self) -> str:
        newest = self._db.execute("SELECT head FROM claims ORDER BY number DESC LIMIT 1").fetchone()
        return newest[0] if newest else ""


def _head_after(head: str, dataset: str, keys: str) -> str:
    return hashlib.sha256(json.dumps([head, dataset, keys]).encode()).hexdigest()
