"""Ledgers, outboxes and witnesses on small plans, and a server's asks of them."""

import fcntl
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from confide.client.privacy.account import AnswerKey, Reservation
from confide.client.privacy.database import Database
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.outbox import FileOutbox
from confide.client.privacy.release import AnswerRequest, recover, release
from confide.client.privacy.rollback import Witnesses
from confide.client.privacy.terms import Terms
from confide.common.privacy.coins import Coins
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import PrivacyPlan

LINEAGE = "ab" * 16
INPUT, RUN = "1" * 64, "2" * 64
FACTS = {"input_sha256": INPUT, "run_sha256": RUN, "coins": "os"}
CAP = Cap(8.0, 1e-5)
# Epsilon at 1e-5 by PLD after 1 to 6 steps: 0.7, 0.9, 1.0, 1.1, 1.2, 1.3.
PLAN = PrivacyPlan("record", 0.2, 6, 40, 1.0, "automatic", 2.0, 1e-5, validation_releases=2)
OTHER = replace(PLAN, sampling_probability=1.0, noise_multiplier=4.0, num_steps=4, validation_releases=0)
# Of four institutions, one of which may collude: the sum has the noise of PLAN, a share alone 2 / sqrt(3).
SHARED = replace(PLAN, validation_releases=0).shared(4, 1, 64)
# In the order in which one answer passes them; `witness-written` once for each row.
ARROWS = [
    "before-reserve",
    "after-reserve",
    "after-train",
    "outbox-written",
    "outbox-renamed",
    "before-seal",
    "after-seal",
]


class Crash(SystemExit):
    """The process ends here, as far as a test can play that: what keeps every other error lets this one through."""


def nobody(row: dict[str, Any], row_hash: str) -> None:
    """No witness."""


def make_ledger(path: Path | str = ":memory:", witness: Any = nobody, **terms: Any) -> Ledger:
    return Ledger(
        Database(path), Terms(**{"dataset": "people", "unit": "record", "max_records_per_group": 1, **terms}), witness
    )


def key(number: int = 1, study: str = "study", what: Any = "update") -> AnswerKey:
    return AnswerKey(study, LINEAGE, what, number)


def reserve(ledger: Ledger, number: int = 1, cap: Cap = CAP, *, steps: int = 1, study: str = "study") -> Reservation:
    return ledger.reserve(key(number, study), (steps, 0), cap, FACTS)


def kinds(ledger: Ledger) -> list[str]:
    return [row["kind"] for row, _ in ledger.rows()]


@dataclass
class Place:
    """An institution's folder, opened as a client opens it at its start; ``made`` counts computations."""

    folder: Path
    ledger: Ledger
    outbox: FileOutbox
    witnesses: Witnesses
    made: int = 0

    def ask(
        self, number: int = 1, cap: Cap = CAP, *, study: str = "study", plan: PrivacyPlan = PLAN, **changes: Any
    ) -> bytes:
        """One round of one step, through the release protocol."""
        request = replace(AnswerRequest(key(number, study), 1, 0, INPUT, RUN), **changes)

        def agree() -> tuple[Cap, None]:
            self.ledger.open_study(study, plan, cap)
            return cap, None

        return release(request, self.ledger, self.outbox, agree, self.make)

    def make(self, reservation: Reservation, prepared: None) -> bytes:
        """An update that is all noise."""
        self.made += 1
        return Coins.fresh().noise_uniforms(8).tobytes()

    def rows(self) -> list[tuple[dict[str, Any], str]]:
        return read_rows(self.folder / "state" / "ledger.db")


def open_place(folder: Path, dataset: str = "people") -> Place:
    """What `site.open_site` does with a state folder; `LedgerError` where that would refuse to start."""
    witnesses = Witnesses(folder / "anchor", folder / "state" / "audit.jsonl", dataset)
    place = Place(
        folder,
        make_ledger(folder / "state" / "ledger.db", witnesses, dataset=dataset),
        FileOutbox(folder / "state" / "outbox"),
        witnesses,
    )
    witnesses.check(place.ledger.rows)
    place.ledger.account()
    recover(place.ledger, place.outbox)
    return place


def read_rows(path: Path, dataset: str = "people") -> list[tuple[dict[str, Any], str]]:
    """Rows as they are on the disk, by a connection of its own."""
    database = sqlite3.connect(path)
    try:
        query = "SELECT body, hash FROM rows WHERE dataset = ? ORDER BY number"
        return [(json.loads(body), row_hash) for body, row_hash in database.execute(query, (dataset,))]
    finally:
        database.close()


def write_rows(path: Path, rows: list[tuple[dict[str, Any], str]], dataset: str = "people") -> None:
    """Replace a ledger by other rows, as somebody with an editor for SQLite would."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("DELETE FROM rows WHERE dataset = ?", (dataset,))
    for row, row_hash in rows:
        body = json.dumps(row, sort_keys=True, separators=(",", ":"))
        database.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", (dataset, row["number"], row_hash, body))
    database.close()


def rechain(rows: list[tuple[dict[str, Any], str]], change: Callable[[dict[str, Any]], Any]) -> Any:
    """Rows changed by somebody who computes every hash again."""
    changed, previous = [], "0" * 64
    for number, (row, _) in enumerate(rows, 1):
        new = {**row, **(change(row) or {}), "number": number, "previous": previous}
        previous = hashlib.sha256(json.dumps(new, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        changed.append((new, previous))
    return changed


def spend(path: Path, name: str, cap: Cap, rounds: int) -> None:
    """Reserve as many rounds as the ledger gives: runs in a process of its own."""
    ledger = make_ledger(path)
    for number in range(1, rounds + 1):
        try:
            ledger.reserve(AnswerKey("study", name * 16, "update", number), (1, 0), cap, FACTS)
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent counts rows
            print(name, number, error)


def restarted(place: Place) -> Place:
    """The next process."""
    return open_place(place.folder)


def rows_of(place: Place, kind: str) -> list[dict[str, Any]]:
    return [row for row, _ in place.rows() if row["kind"] == kind]


def head_of(place: Place) -> str:
    """The hash of the newest RESERVE."""
    return next(row_hash for row, row_hash in reversed(place.rows()) if row["kind"] == "reserve")


def lock_is_free(outbox: Path) -> bool:
    """Whether a start of another process would get the lock of an outbox now (`FileOutbox.idle`)."""
    descriptor = os.open(outbox / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
