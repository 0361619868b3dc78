"""The state of an unfinished simulation, from which it can go on: the run directory's ``resume/``, deleted at its end.

Simulated institutions have their ledgers in memory. Every ledger row is also written here as it is made, and so are the
answers of the open round. So a killed process forgets nothing that was spent. No write waits for the disk: a power cut
costs only a simulation.
"""

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from confide.client.privacy.account import LedgerRow
from confide.client.privacy.database import Database
from confide.client.privacy.row_kinds import canonical, hash_row
from confide.common.durable import cut_torn_line, whole_or_not_at_all
from confide.common.errors import InputError
from confide.common.folders import held_alone

_FACTS, _ROWS, _ANSWERS, _SHARES, _LEDGER = "simulation.json", "ledger.jsonl", "answers", "shares", "ledger.db"


@dataclass(frozen=True)
class Unfinished:
    """The folder ``resume/`` of a simulation.

    Attributes:
        folder: its path.
        lineage: of the run, kept through every resume.
        real_sites: True if its institutions are real ones, with ledgers and outboxes of their own.
        places: paths of the files that its run.toml, which was in another folder, names (`RunConfig.places`).
        unwritten: rows for which the disk had no room.
    """

    folder: Path
    lineage: str
    real_sites: bool
    places: dict[str, str]
    unwritten: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, run_dir: Path, places: dict[str, str], *, real_sites: bool) -> "Unfinished":
        """Make the folder of a simulation that begins."""
        begun = cls(run_dir / "resume", secrets.token_hex(16), real_sites, places)
        (begun.folder / _ANSWERS).mkdir(parents=True)
        facts = {"lineage": begun.lineage, "real_sites": real_sites, "places": places}
        (begun.folder / _FACTS).write_text(json.dumps(facts) + "\n", encoding="utf-8")
        return begun

    @classmethod
    def open(cls, run_dir: Path) -> "Unfinished":
        """Open the folder of an interrupted simulation; `InputError` if there is nothing from which to go on."""
        path = run_dir / "resume" / _FACTS
        try:
            facts = json.loads(path.read_bytes())
            return cls(path.parent, str(facts["lineage"]), bool(facts["real_sites"]), dict(facts["places"]))
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                f"--resume {run_dir}: {path} cannot be read; there is one only in the folder of a simulation that was "
                "interrupted, and not with --engine ray. Start it anew, with another --out"
            ) from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold a lock while this process carries the run out; `InputError` if another process does."""
        with held_alone(self.folder, f"{self.folder.parent}: another `confide simulate` carries this run out"):
            yield

    def end(self) -> None:
        """Delete the folder: the simulation is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def open_database(self) -> Database:
        """Return the database of all ledgers: in memory, or on the disk if there were rows before.

        Raises:
            InputError: a row is missing.
        """
        cut_torn_line(self.folder / _ROWS)  # else the next row would be written behind it, and be lost
        rows = self._rows()
        if not rows:
            return Database(":memory:")
        path = self.folder / _LEDGER
        for name in (path, path.with_name(f"{_LEDGER}-wal"), path.with_name(f"{_LEDGER}-shm")):
            name.unlink(missing_ok=True)  # of an earlier resume
        database = Database(path)
        with database.connection as connection:
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO rows VALUES (?, ?, ?, ?)", rows)
        return database

    def note(self, row: LedgerRow, row_hash: str) -> None:
        """Write a row down, as the witness of all ledgers: before any computation, and before its answer leaves."""
        self.unwritten.append(canonical(row))  # of a full disk: written with the next row
        with whole_or_not_at_all(self.folder / _ROWS) as path, path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{text}\n" for text in self.unwritten))
        self.unwritten.clear()

    def _rows(self) -> list[tuple[str, int, str, str]]:
        """Return dataset, number, hash and text of every row; a cut last line was never acted on."""
        path, datasets, rows = self.folder / _ROWS, dict[str, str](), []
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            row_hash = hash_row(row)
            if row["number"] > 1 and row["previous"] not in datasets:
                raise InputError(
                    f"{path}: row {row['number']} of a ledger follows one that is missing; start anew, with another "
                    "--out"
                )
            datasets[row_hash] = row["dataset"] if row["number"] == 1 else datasets[row["previous"]]
            rows.append((datasets[row_hash], row["number"], row_hash, line))
        return rows

    def outbox(self) -> "OpenRound":
        """Return the outbox of the open round's answers."""
        return OpenRound(self.folder / _ANSWERS)

    def shares(self) -> "OpenRound":
        """Return the held shares of the open round's secure sum."""
        (self.folder / _SHARES).mkdir(exist_ok=True)
        return OpenRound(self.folder / _SHARES)


@dataclass(frozen=True)
class OpenRound:
    """An outbox in a folder, emptied at the end of each round; without fsync, see above."""

    folder: Path

    def put(self, name: str, content: bytes) -> None:
        """Keep an answer."""
        temporary = self.folder / f".{name}"
        temporary.write_bytes(content)
        temporary.rename(self.folder / name)

    def get(self, name: str) -> bytes | None:
        """Return an answer, or None."""
        path = self.folder / name
        return path.read_bytes() if path.is_file() else None

    def names(self) -> list[str]:
        """Return no names: no other code needs to delete these answers."""
        return []

    def delete(self, name: str) -> None:
        """Forget an answer."""
        (self.folder / name).unlink(missing_ok=True)

    def busy(self) -> AbstractContextManager[None]:
        """Return a context that locks nothing: no other process uses this outbox."""
        return nullcontext()

    def idle(self) -> AbstractContextManager[None]:
        """Return a context that locks nothing: no other process uses this outbox."""
        return nullcontext()

    def clear(self) -> None:
        """Forget the answers of a round that has ended."""
        for path in self.folder.iterdir():
            path.unlink()
