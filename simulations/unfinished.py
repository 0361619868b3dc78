"""What a simulation that has not ended leaves to go on from, in the run directory's ``resume/``; gone at its end.

Institutions that are simulated have their ledgers in memory. So that a killed process forgets nothing that was spent,
every ledger row is written down here as it is made, and so are the answers of the round that is open. Nothing waits for
the disk: what a power cut takes was a simulation's.
"""

import fcntl
import json
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from confide.client.privacy.account import Row
from confide.client.privacy.ledger import Ledger, Terms
from confide.client.privacy.row_kinds import canonical, hash_row
from confide.common.errors import InputError

_FACTS, _ROWS, _ANSWERS, _LEDGER = "simulation.json", "ledger.jsonl", "answers", "ledger.db"


@dataclass(frozen=True)
class Unfinished:
    """The folder ``resume/`` of a simulation.

    Attributes:
        folder: it.
        lineage: of the run, kept through every resume.
        rehearsal: whether its institutions are real ones, whose ledgers and outboxes are their own.
        places: of the files that its run.toml names, which was elsewhere (`RunConfig.places`).
    """

    folder: Path
    lineage: str
    rehearsal: bool
    places: dict[str, str]

    @classmethod
    def begin(cls, run_dir: Path, places: dict[str, str], *, rehearsal: bool) -> "Unfinished":
        """That of a simulation that begins."""
        begun = cls(run_dir / "resume", secrets.token_hex(16), rehearsal, places)
        (begun.folder / _ANSWERS).mkdir(parents=True)
        facts = {"lineage": begun.lineage, "rehearsal": rehearsal, "places": places}
        (begun.folder / _FACTS).write_text(json.dumps(facts) + "\n", encoding="utf-8")
        return begun

    @classmethod
    def open(cls, run_dir: Path) -> "Unfinished":
        """That of one that was interrupted; `InputError` where nothing is left to go on from."""
        path = run_dir / "resume" / _FACTS
        try:
            facts = json.loads(path.read_bytes())
            return cls(path.parent, str(facts["lineage"]), bool(facts["rehearsal"]), dict(facts["places"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                f"--resume {run_dir}: {path} cannot be read; there is one only in the folder of a simulation that was "
                "interrupted, and not with --engine ray. Start it anew, with another --out"
            ) from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Held while a process carries the run out; `InputError` where another one does."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{self.folder.parent}: another `confide simulate` carries this run out") from None
        else:
            yield
        finally:
            os.close(descriptor)  # which unlocks

    def end(self) -> None:
        """Nothing is left to go on from."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def first_ledger(self, terms: Terms) -> Ledger:
        """The ledger that all others are beside: in memory, or on the disk where there were rows before."""
        rows = self._rows()
        if not rows:
            return Ledger(":memory:", terms, self.note)
        path = self.folder / _LEDGER
        for name in (path, path.with_name(f"{_LEDGER}-wal"), path.with_name(f"{_LEDGER}-shm")):
            name.unlink(missing_ok=True)  # of an earlier resume
        ledger = Ledger(path, terms, self.note)  # makes the table
        with sqlite3.connect(path) as database:
            database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", rows)
        return ledger

    def note(self, row: Row, row_hash: str) -> None:
        """The witness of all ledgers: a row is here before anything is computed, and before its answer leaves."""
        with (self.folder / _ROWS).open("a", encoding="utf-8") as file:
            file.write(canonical(row) + "\n")

    def _rows(self) -> list[tuple[str, int, str, str]]:
        """Dataset, number, hash and text of every row; a line that is torn, at the end, was never acted on."""
        path, datasets, rows = self.folder / _ROWS, dict[str, str](), []
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            row_hash = hash_row(row)
            datasets[row_hash] = row["dataset"] if row["number"] == 1 else datasets[row["previous"]]
            rows.append((datasets[row_hash], row["number"], row_hash, line))
        return rows

    def outbox(self) -> "OpenRound":
        """The answers of the round that is open."""
        return OpenRound(self.folder / _ANSWERS)


@dataclass(frozen=True)
class OpenRound:
    """An outbox in a folder, emptied at the end of each round; no fsync, see above."""

    folder: Path

    def put(self, name: str, content: bytes) -> None:
        """Keep an answer."""
        temporary = self.folder / f".{name}"
        temporary.write_bytes(content)
        temporary.rename(self.folder / name)

    def get(self, name: str) -> bytes | None:
        """An answer, or None."""
        path = self.folder / name
        return path.read_bytes() if path.is_file() else None

    def names(self) -> list[str]:
        """None that anybody else need delete."""
        return []

    def delete(self, name: str) -> None:
        """Forget an answer."""
        (self.folder / name).unlink(missing_ok=True)

    def busy(self) -> AbstractContextManager[None]:
        """Nobody else is there."""
        return nullcontext()

    def idle(self) -> AbstractContextManager[None]:
        """Nobody else is there."""
        return nullcontext()

    def clear(self) -> None:
        """Forget the answers of a round that has ended."""
        for path in self.folder.iterdir():
            path.unlink()
