"""Witnesses of the ledger's last row: an anchor file in another folder, and the audit log.

An old ledger, put back from a backup, would give spent budget back. The witnesses notice it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confide.client.privacy.account import LedgerRow
from confide.common.durable import append_durably, replace_durably
from confide.common.errors import ConfideError, LedgerError
from confide.common.failpoints import failpoint

_TOLD = [
    "study",
    "round",
    "what",
    "steps",
    "max_epsilon",
    "max_delta",
    "max_epsilon_if_broken",
    "members",
]  # of a row, to the audit log
_REMEDY = "put back the newest ledger.db; without it nobody knows what was spent, and these people must not take part"


def anchor_of(folder: Path, dataset: str) -> Path:
    """The anchor file of a dataset."""
    return folder / f"{hashlib.sha256(dataset.encode()).hexdigest()[:16]}.json"


class Witnesses:
    """Keep the number and hash of one dataset's newest row outside its ledger.

    Guarantee: after `__call__` both files are on the disk. `check` refuses a ledger that does not continue the rows
    that either of them saw. Two processes that write at once may leave the anchor one row behind until the next row;
    the audit log holds every row. If ledger, anchor, audit log and outbox are all put back together, only a server
    that shows a newer signed update can reveal it (`release.acknowledge`).
    """

    def __init__(self, anchor: Path, audit: Path, dataset: str) -> None:
        self._dataset, self._audit = dataset, audit
        self._anchor = anchor_of(anchor, dataset)
        for folder in (anchor, audit.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def __call__(self, row: LedgerRow, row_hash: str) -> None:
        """Note a new row; `ConfideError` if the disk does not take the note. The row and its charge stay."""
        with _told():
            self._write(row, row_hash)

    def _write(self, row: LedgerRow, row_hash: str) -> None:
        seen = {"dataset": self._dataset, "number": row["number"], "hash": row_hash}
        anchored = self._anchored()
        if row["number"] > anchored.get("number", 0):
            replace_durably(self._anchor, json.dumps({**anchored, **seen}).encode(), 0o600)
        told = {name: row[name] for name in _TOLD if name in row}
        append_durably(self._audit, json.dumps({"time": row["time"], "event": row["kind"], **seen, **told}))
        failpoint("witness-written")

    def note(self, event: str, **facts: str) -> None:
        """Write an event that is no row of the ledger, such as new keys, into the audit log. No server can cause it."""
        append_durably(self._audit, json.dumps({"time": int(time.time()), "event": event, **facts}))

    def commit(self, secret_commitment: str) -> None:
        """Keep the commitment that a first row of an earlier version lacks, once in each place."""
        with _told():
            anchored, known = self._anchored(), [place for place, *_ in self.commitments()]
            kept = {"secret_commitment": secret_commitment}
            if anchored and str(self._anchor) not in known:
                replace_durably(self._anchor, json.dumps({**anchored, **kept}).encode(), 0o600)
            if not any(line.get("of") == self._dataset for line in self._lines()):
                self.note("commitment", of=self._dataset, **kept)

    def commitments(self) -> list[tuple[str, str, str]]:
        """Return place, dataset and value of each commitment. The audit log serves the whole state folder."""
        kept = [(str(self._anchor), {"of": self._dataset, **self._anchored()})]
        kept += [(str(self._audit), line) for line in self._lines() if line.get("event") == "commitment"]
        return [
            (place, e["of"], e["secret_commitment"]) for place, e in kept if {"of", "secret_commitment"} <= e.keys()
        ]

    def check(self, read_rows: Callable[[], list[tuple[LedgerRow, str]]]) -> None:
        """Compare the witnesses with the ledger as it is now.

        The rows are read after the witnesses. A witness is told of a row after its COMMIT, so no row that another
        process adds meanwhile is missing.

        Raises:
            LedgerError: the ledger is older than a witness, or another one.
        """
        anchored = self._anchored()
        seen = [(str(self._anchor), anchored)] if anchored else []
        seen += [(str(self._audit), line) for line in self._lines() if line.get("dataset") == self._dataset]
        rows = read_rows()
        for witness, head in seen:
            number = head.get("number")
            if not isinstance(number, int) or not 1 <= number <= len(rows) or rows[number - 1][1] != head.get("hash"):
                raise LedgerError(
                    f"ledger of {self._dataset!r}: {witness} saw row {number}, which is not there or is another now: "
                    f"an old copy was put back, or rows were changed; {_REMEDY}"
                )

    def _anchored(self) -> dict[str, Any]:
        if not self._anchor.is_file():
            return {}
        try:
            return dict(json.loads(self._anchor.read_bytes()))
        except (ValueError, TypeError):
            raise LedgerError(f"{self._anchor}: not an anchor; {_REMEDY}") from None

    def _lines(self) -> list[dict[str, Any]]:
        """Return the lines of the audit log, without those that a crash tore."""
        lines = []
        for text in self._audit.read_bytes().split(b"\n") if self._audit.is_file() else []:
            try:
                lines.append(dict(json.loads(text)))
            except (ValueError, TypeError):
                continue
        return lines


@contextmanager
def _told() -> Iterator[None]:
    """Turn the error of a disk that takes nothing into ours."""
    try:
        yield
    except OSError as error:
        raise ConfideError(f"{error.filename}: cannot be written: {error.strerror}; free some space") from None
