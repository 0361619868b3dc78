"""What a ledger's rows amount to: pure. `rows` says what each row does to it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from confide.common.privacy.filter import Cap, Charge, composed_epsilon, filter_epsilon, spent
from confide.common.privacy.plan import PrivacyPlan

Row = dict[str, Any]
AnswerKind = Literal["update", "validation"]


@dataclass(frozen=True)
class AnswerKey:
    """What one answer is an answer to."""

    study: str
    lineage: str
    what: AnswerKind
    round: int


@dataclass
class Reservation:
    """One RESERVE row, and what became of it."""

    number: int
    hash: str  # of the row: names the outbox file
    key: AnswerKey
    input_sha256: str
    run_sha256: str
    sealed_sha256: str | None = None
    acknowledged: bool = False


@dataclass
class Study:
    """One study's allotment and what was reserved of it. ``plan`` is None for training without privacy."""

    plan: PrivacyPlan | None
    steps: int = 0
    releases: int = 0
    returns: bool = True  # whether CLOSE gives back what was never reserved (see `privacy.filter`)
    reserved_steps: int = 0
    reserved_releases: int = 0
    closed: bool = False

    @property
    def is_spent(self) -> bool:
        """Whether every step of its allotment was reserved."""
        return self.plan is not None and self.reserved_steps >= self.steps


@dataclass
class Account:
    """All rows of one dataset, added up.

    Attributes:
        number, head: of the last row.
        first: the dataset row: id, unit, order of the filter.
        cap: in force.
        opened_under: the cap when a study was last opened; as long as it is in force, all allotments fit.
        studies: by name.
        reservations: by number of their row; ``answers``: the same by what they answer, oldest first.
        approved: pairs of study and run hash.
        people: of the newest row that commits to people.db, the hash of the row before and the commitment; older
            versions wrote none.
    """

    number: int = 0
    head: str = ""
    first: Row = field(default_factory=dict)
    cap: Cap | None = None
    opened_under: Cap | None = None
    studies: dict[str, Study] = field(default_factory=dict)
    reservations: dict[int, Reservation] = field(default_factory=dict)
    answers: dict[AnswerKey, list[Reservation]] = field(default_factory=dict)
    approved: set[tuple[str, str]] = field(default_factory=set)
    retired: bool = False
    people: tuple[str, str] | None = None

    @property
    def infinite(self) -> bool:
        """Whether anything was ever trained without privacy."""
        return any(study.plan is None for study in self.studies.values())

    def allotted(self) -> list[Charge]:
        """What the studies may spend in all: the whole allotment, or what was reserved of a closed one."""
        return [
            Charge(study.plan, study.reserved_steps, study.reserved_releases)
            if study.closed and study.returns
            else Charge(study.plan, study.steps, study.releases)
            for study in self.studies.values()
            if study.plan
        ]

    def reserved(self) -> dict[str, Charge]:
        """What was spent: by study, as reserved, whatever ran."""
        return {
            name: Charge(study.plan, study.reserved_steps, study.reserved_releases)
            for name, study in self.studies.items()
            if study.plan
        }

    def epsilon_spent(self, delta: float) -> float:
        """Epsilon of all that was reserved, rounded up; infinite after any training without privacy."""
        return float("inf") if self.infinite else spent(list(self.reserved().values()), delta, self.first["order"])

    def both_accounts(self, delta: float) -> tuple[float, float]:
        """The filter's epsilon and composed PLD's of what was reserved; the second decides nothing across studies."""
        charges = list(self.reserved().values())
        return filter_epsilon(charges, delta, self.first["order"]), composed_epsilon(charges, delta)
