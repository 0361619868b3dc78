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
from crash.share_laws import fixed_names, held_shares, is_another_release, is_done, is_sealed, needed_shares
from support.accounts import Replay, Rows, Spending, filter_epsilon, replay
from support.ledgers import read_rows

from confide.common.privacy.filter import Cap


class Violation(Exception):
    """Something that must never happen."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


@dataclass
class Laws:
    """All that was ever seen of one institution.

    Attributes:
        received: bytes by ask; ``drawn``: every value of noise, of all attempts, sent or not; ``shares``: all that were
            ever held, by name.
        rows, now: of the ledger at the last look, and what they amount to.
        in_force: caps that the site file held since the last ask; ``torn``: it was half saved in between.
    """

    kind: Kind
    folder: Path
    received: dict[Ask, bytes] = field(default_factory=dict)
    drawn: set[bytes] = field(default_factory=set)
    shares: dict[str, bytes] = field(default_factory=dict)
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
            if row["kind"] in ("reserve", "release"):
                cap = (*self.now.cap, self.now.cap_if_broken)
                require(cap in map(_limits, self.in_force), f"{row['kind']} under {cap}, in force: {self.in_force}")
        self.rows = rows
        require(not self.now.problems, "; ".join(self.now.problems))
        self.require_fixed_files()
        self.require_released_is_reserved()

    def require_fixed_files(self) -> None:
        """No sealed answer is lost, no released one, no share that may still leave; each is byte for byte as it was."""
        files, held = self.files(), held_shares(self.folder)
        digests = {f"{self.now.hashes[number]}.answer": digest for number, digest in self.now.sealed.items()}
        digests |= {f"{self.now.hashes[number]}.sum": digest for number, (_, digest) in self.now.released.items()}
        for number in self.now.sealed:
            name = f"{self.now.hashes[number]}.answer"
            done = name not in files and is_done(self.now, self.now.asked[number][0], self.now.asked[number][3])
            require(name in files or done, f"row {number}: its sealed answer is lost")
        for name in digests.keys() & files.keys():
            digest = hashlib.sha256(self.kind.payload(files[name].read_bytes())).hexdigest()
            require(digest == digests[name], f"{name}: an answer that is fixed was lost or changed")
        must, _ = needed_shares(self.now, set(files))
        require(must <= held.keys(), f"shares that may still leave are lost: {must - held.keys()}")
        for name, path in held.items():
            content = path.read_bytes()
            require(self.shares.setdefault(name, content) == content, f"{name}: a share was changed")

    def require_released_is_reserved(self) -> None:
        """What the server has was charged first, and sealed; a masked share had its RELEASE, under that statement."""
        numbers = {row_hash: number for number, row_hash in self.now.hashes.items()}
        for ask, content in self.received.items():
            number = numbers.get(self.kind.head(content), 0)
            require(number in self.now.asked, f"{ask} was released and never reserved")
            digest = hashlib.sha256(self.kind.payload(content)).hexdigest()
            if ask.statement:
                row = (ask.statement, digest)
                require(self.now.released.get(number) == row, f"{ask}: its share left without its RELEASE")
            else:
                require(self.now.sealed.get(number) == digest, f"{ask} was released and never sealed")

    def require_nothing_left(self) -> None:
        """After a start and after an answer: no answer without a SEAL, no masked share without a RELEASE, no share that
        has left or may not leave any more, nothing half written."""
        now, files = replay(self.read()), self.files()
        orphans = files.keys() - fixed_names(now)
        require(not orphans, f"the outbox holds answers without a SEAL: {orphans}")
        _, may = needed_shares(now, set(files))
        left = held_shares(self.folder).keys() - may
        require(not left, f"shares are still held that were sent, or may not be any more: {left}")
        leftovers = [path for name in ("outbox", "shares") for path in (self.folder / "state" / name).rglob(".*.tmp")]
        require(not leftovers, f"half-written files stay: {leftovers}")

    def count_orphans(self) -> int:
        """Files in the outbox that have no SEAL or no RELEASE, and shares that have no SEAL."""
        shares = {f"{self.now.hashes[number]}.share" for number in self.now.sealed}
        return len(self.files().keys() - fixed_names(self.now)) + len(held_shares(self.folder).keys() - shares)

    def files(self) -> dict[str, Path]:
        """Finished files of the outbox, by name."""
        found = (self.folder / "state" / "outbox").rglob("*.*")
        return {path.name: path for path in found if path.suffix in (".answer", ".sum")}

    def note_noise(self, noise: bytes) -> None:
        """Attempts, sent or not, never share a value of their noise."""
        values = {noise[start : start + 8] for start in range(0, len(noise), 8)}
        require(not values & self.drawn, "two attempts drew the same noise")
        self.drawn |= values

    def note_answer(self, ask: Ask, content: bytes, fixed: set[str]) -> None:
        """An answer must be the one that was ``fixed`` before, if one was, and the same as ever."""
        digest = hashlib.sha256(self.kind.payload(content)).hexdigest()
        require(not fixed or digest in fixed, f"{ask}: another answer than the one that was fixed")
        require(self.received.get(ask, content) == content, f"{ask}: another answer than the server has")
        self.received[ask] = content
        self.look()

    def fixed_answers(self, ask: Ask) -> set[str]:
        """Hashes of what answers an ask: sealed, or for a sum released under its statement."""
        wanted = (ask.study, ask.what, ask.round, ask.input_sha256)
        numbers = [number for number, item in self.now.asked.items() if (item[0], *item[2:5]) == wanted]
        if ask.statement:
            left = [self.now.released[number] for number in numbers if number in self.now.released]
            return {digest for statement, digest in left if statement == ask.statement}
        return {self.now.sealed[number] for number in numbers if number in self.now.sealed}

    def has_reason(self, ask: Ask, error: str) -> bool:
        """Whether a refusal was due: the round had its retry or its release, or budget or cap do not allow it."""
        if self.fixed_answers(ask) and not is_another_release(self.now, ask):
            return error == "LedgerError" and is_done(self.now, ask.study, ask.round)
        if error == "PolicyError":
            attempts = [made for key, made in self.now.attempts.items() if (key[0], *key[2:]) == _place(ask)]
            retried = not ask.statement and any(len(made) == 2 for made in attempts)
            no_share = ask.statement != "" and not is_sealed(self.now, ask)
            refused = retried or no_share or is_another_release(self.now, ask)
            return refused or not self.kind.reads_policy_at_every_ask
        return error == "BudgetError" and self.is_above(ask)

    def is_above(self, ask: Ask) -> bool:
        """Whether the allotment is used up, or a cap does not allow the spend by the filter of its account."""
        plan, price = self.kind.plans[ask.study], (int(ask.what == "update"), int(ask.what != "update"))
        allotted = {**self.now.allotted}.setdefault(ask.study, (plan.num_steps, plan.validation_releases))
        charged = self.now.reserved.get(ask.study, (0, 0))
        used_up = any(before + more > most for before, more, most in zip(charged, price, allotted, strict=True))
        if used_up and not ask.statement:
            return True
        most = {**self.now.allotted, ask.study: allotted}
        spent = (self.spent(most, self.now.order or 2), self.spent(most, self.now.order_if_broken or 2, broken=True))
        return any(
            epsilon > limit - 1e-3
            for cap in self.in_force
            for epsilon, limit in zip(spent, (cap.max_epsilon, cap.if_broken.max_epsilon), strict=True)
        )

    def spent(self, charges: dict[str, tuple[int, int]], order: int, *, broken: bool = False) -> float:
        """Epsilon by the filter of an account."""
        spendings = []
        for study, (steps, releases) in charges.items():
            plan = self.kind.plans[study].if_broken if broken else self.kind.plans[study]
            noises = (plan.noise_multiplier, plan.validation_noise_multiplier)
            spendings.append(Spending(plan.sampling_probability, noises[0], steps, noises[1], releases))
        return filter_epsilon(spendings, self.kind.caps[0].max_delta, order)

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


def _limits(cap: Cap) -> tuple[float, float, float]:
    """A cap as `Replay` has it."""
    return cap.max_epsilon, cap.max_delta, cap.if_broken.max_epsilon


def _place(ask: Ask) -> tuple[str, str, int]:
    return ask.study, ask.what, ask.round


@contextmanager
def _copied(state: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("ledger.db", "ledger.db-wal"):
            if (state / name).exists():
                shutil.copy(state / name, Path(folder) / name)
        yield Path(folder) / "ledger.db"
