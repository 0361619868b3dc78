"""What must hold after every answer and every kill, from the files on the disk and from what the server saw."""

import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from crash.asks import Ask, Kind
from support.accounts import Replay, Rows, Spending, filter_epsilon, replay
from support.ledgers import read_rows

from confide.common.privacy.filter import Cap

_KEPT_ROUNDS = 3  # of answers that the server has acknowledged


class Violation(Exception):
    """Something that must never happen."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


@dataclass
class Laws:
    """All that was ever seen of one institution.

    Attributes:
        received: bytes by ask; ``drawn``: every value of noise, of all attempts, sent or not.
        rows, now: of the ledger at the last look, and what they amount to.
        in_force: caps that the site file held since the last ask; ``torn``: it was half saved in between.
    """

    kind: Kind
    folder: Path
    received: dict[Ask, bytes] = field(default_factory=dict)
    drawn: set[bytes] = field(default_factory=set)
    rows: Rows = field(default_factory=list)
    now: Replay = field(default_factory=Replay)
    in_force: set[Cap] = field(default_factory=set)
    torn: bool = False

    def look(self) -> None:
        """At the ledger and the outbox; raises `Violation`."""
        rows = self.read()
        require(rows[: len(self.rows)] == self.rows, "a row of the ledger changed or is gone")
        for row, row_hash in rows[len(self.rows) :]:
            self.now.add(row, row_hash)
            if row["kind"] == "reserve":
                cap = Cap(row["max_epsilon"], row["max_delta"])
                require(cap in self.in_force, f"reserved under {cap}, in force: {self.in_force}")
        self.rows = rows
        require(not self.now.problems, "; ".join(self.now.problems))
        self.require_sealed_files()
        self.require_released_is_reserved()

    def require_sealed_files(self) -> None:
        """No sealed answer is lost: its file is there, byte for byte, until three later rounds are acknowledged."""
        now, newest, files = self.now, dict[str, int](), self.files()  # newest: acknowledged round by run
        for number in now.acknowledged:
            _, lineage, _, place, *_ = now.asked[number]
            newest[lineage] = max(place, newest.get(lineage, 0))
        for number, digest in now.sealed.items():
            _, lineage, _, place, *_ = now.asked[number]
            path = files.get(f"{now.hashes[number]}.answer")
            done = path is None and place + _KEPT_ROUNDS <= newest.get(lineage, 0)
            there = path is not None and hashlib.sha256(path.read_bytes()).hexdigest() == digest
            require(there or done, f"row {number}: its sealed answer is lost or changed")

    def require_released_is_reserved(self) -> None:
        """What the server has was charged first, and sealed."""
        numbers = {row_hash: number for number, row_hash in self.now.hashes.items()}
        for ask, content in self.received.items():
            number = numbers.get(self.kind.head(content), 0)
            require(number in self.now.asked, f"{ask} was released and never reserved")
            digest = hashlib.sha256(content).hexdigest()
            require(self.now.sealed.get(number) == digest, f"{ask} was released and never sealed")

    def require_clean_outbox(self, names: list[str]) -> None:
        """After a start nothing without a SEAL is left in the outbox, nor anything half written."""
        now = replay(self.read())
        sealed = {f"{now.hashes[number]}.answer" for number in now.sealed}
        require(set(names) <= sealed, f"the outbox holds answers without a SEAL: {set(names) - sealed}")
        leftovers = list((self.folder / "state" / "outbox").rglob(".*.tmp"))
        require(not leftovers, f"half-written files stay: {leftovers}")

    def count_orphans(self) -> int:
        """Files in the outbox that have no SEAL."""
        sealed = {f"{self.now.hashes[number]}.answer" for number in self.now.sealed}
        return len(self.files().keys() - sealed)

    def files(self) -> dict[str, Path]:
        """Finished files of the outbox, by name."""
        return {path.name: path for path in (self.folder / "state" / "outbox").rglob("*.answer")}

    def note_noise(self, noise: bytes) -> None:
        """Attempts, sent or not, never share a value of their noise."""
        values = {noise[start : start + 8] for start in range(0, len(noise), 8)}
        require(not values & self.drawn, "two attempts drew the same noise")
        self.drawn |= values

    def note_answer(self, ask: Ask, content: bytes, sealed: set[str]) -> None:
        """An answer must be the one that was ``sealed`` before, if one was, and the same as ever."""
        digest = hashlib.sha256(content).hexdigest()
        require(not sealed or digest in sealed, f"{ask}: another answer than the one that was sealed")
        require(self.received.get(ask, content) == content, f"{ask}: another answer than the server has")
        self.received[ask] = content
        self.look()

    def sealed_answers(self, ask: Ask) -> set[str]:
        """Hashes of the files that answer an ask."""
        wanted = (ask.study, ask.what, ask.round, ask.input_sha256)
        numbers = [number for number, item in self.now.asked.items() if (item[0], *item[2:5]) == wanted]
        return {self.now.sealed[number] for number in numbers if number in self.now.sealed}

    def has_reason(self, ask: Ask, error: str) -> bool:
        """Whether a refusal was due: the round had its retry, or budget or cap do not allow it by the filter."""
        if error == "PolicyError":
            attempts = [made for key, made in self.now.attempts.items() if (key[0], *key[2:]) == _place(ask)]
            return any(len(made) == 2 for made in attempts) or not self.kind.reads_policy_at_every_ask
        if error != "BudgetError":
            return False
        plan, price = self.kind.plans[ask.study], (int(ask.what == "update"), int(ask.what != "update"))
        allotted = {**self.now.allotted}.setdefault(ask.study, (plan.num_steps, plan.validation_releases))
        charged = self.now.reserved.get(ask.study, (0, 0))
        if any(before + more > most for before, more, most in zip(charged, price, allotted, strict=True)):
            return True
        most = self.spendings({**self.now.allotted, ask.study: allotted})
        order = self.now.order or 2
        return any(filter_epsilon(most, cap.max_delta, order) > cap.max_epsilon - 1e-3 for cap in self.in_force)

    def spendings(self, charges: dict[str, tuple[int, int]]) -> list[Spending]:
        result = []
        for study, (steps, releases) in charges.items():
            plan = self.kind.plans[study]
            noises = (plan.noise_multiplier, plan.validation_noise_multiplier)
            result.append(Spending(plan.sampling_probability, noises[0], steps, noises[1], releases))
        return result

    def read(self) -> Rows:
        """The rows, from a copy: the client's own next start must be the one that recovers the write-ahead log."""
        state = self.folder / "state"
        if not (state / "ledger.db").exists():
            return []
        with _copied(state) as copy:
            try:
                return read_rows(copy)
            except sqlite3.Error:  # killed before the table was made
                require(not self.rows, "the ledger cannot be read any more")
                return []


def _place(ask: Ask) -> tuple[str, str, int]:
    return ask.study, ask.what, ask.round


@contextmanager
def _copied(state: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("ledger.db", "ledger.db-wal"):
            if (state / name).exists():
                shutil.copy(state / name, Path(folder) / name)
        yield Path(folder) / "ledger.db"
