"""The sum of a ledger's rows, as pure data. `row_kinds` defines the effect of each row."""

from dataclasses import dataclass, field
from typing import Any, Literal

from confide.common.privacy.filter import Cap, Charge, Orders, composed_epsilon, filter_epsilon, if_broken, spent
from confide.common.privacy.plan import PrivacyPlan

LedgerRow = dict[str, Any]
AnswerKind = Literal["update", "validation"]


@dataclass(frozen=True)
class AnswerKey:
    """The ask to which an answer belongs."""

    study: str
    lineage: str
    what: AnswerKind
    round: int


@dataclass
class Reservation:
    """One RESERVE row, with its SEAL, its ACK and, for a share of a secure sum, its RELEASE.

    ``released`` is the hash of the statement under which the share left, ``released_sha256`` that of the masked share.
    """

    number: int
    hash: str  # of the row; it names the outbox file
    key: AnswerKey
    input_sha256: str
    run_sha256: str
    sealed_sha256: str | None = None
    acknowledged: bool = False
    released: str | None = None
    released_sha256: str | None = None

    @property
    def answer_file(self) -> str:
        """The name of its sealed answer in the outbox."""
        return f"{self.hash}.answer"

    @property
    def sum_file(self) -> str:
        """The name of its masked share in the outbox."""
        return f"{self.hash}.sum"

    @property
    def share_file(self) -> str:
        """The name of its share among those that are held."""
        return f"{self.hash}.share"


@dataclass
class StudyAllotment:
    """One study's allotment, and the reserved part of it. ``plan`` is None for training without privacy."""

    plan: PrivacyPlan | None
    steps: int = 0
    releases: int = 0
    returns: bool = True  # CLOSE gives back the steps that were never reserved (see `privacy.filter`)
    reserved_steps: int = 0
    reserved_releases: int = 0
    closed: bool = False

    @property
    def is_spent(self) -> bool:
        """Return whether every step of the allotment is reserved."""
        return self.plan is not None and self.reserved_steps >= self.steps


@dataclass
class Account:
    """The sum of all rows of one dataset.

    Attributes:
        number, head: number and hash of the last row.
        first: the dataset row: id, unit, orders of the filter.
        cap: the cap in force.
        opened_under: the cap when a study was last opened. While it is in force, all allotments fit.
        studies: by name.
        reservations: by number of their row; ``answers``: the same by the ask that they answer, oldest first.
        approved: pairs of study and run hash.
        people: from the newest row that commits to people.db: the hash of the row before it, and the commitment. Older
            versions wrote none.
    """

    number: int = 0
    head: str = ""
    first: LedgerRow = field(default_factory=dict)
    cap: Cap | None = None
    opened_under: Cap | None = None
    studies: dict[str, StudyAllotment] = field(default_factory=dict)
    reservations: dict[int, Reservation] = field(default_factory=dict)
    answers: dict[AnswerKey, list[Reservation]] = field(default_factory=dict)
    approved: set[tuple[str, str]] = field(default_factory=set)
    retired: bool = False
    people: tuple[str, str] | None = None

    @property
    def infinite(self) -> bool:
        """Return whether any study was ever opened without privacy."""
        return any(study.plan is None for study in self.studies.values())

    @property
    def orders(self) -> Orders:
        """The order of each account; a ledger that names one order counts both accounts at it."""
        order: int = self.first["order"]
        return order, self.first.get("order_if_broken", order)

    @property
    def shares_noise(self) -> bool:
        """Return whether the institutions of any study share noise, so that the two accounts may differ."""
        return any(study.plan is not None and study.plan.sharing is not None for study in self.studies.values())

    def allotted(self) -> list[Charge]:
        """Return each study's charge: the whole allotment, or the reserved part if a closed study returns the rest."""
        return [
            Charge(study.plan, study.reserved_steps, study.reserved_releases)
            if study.closed and study.returns
            else Charge(study.plan, study.steps, study.releases)
            for study in self.studies.values()
            if study.plan
        ]

    def reserved(self) -> dict[str, Charge]:
        """Return the spend by study: all that was reserved, even if nothing ran."""
        return {
            name: Charge(study.plan, study.reserved_steps, study.reserved_releases)
            for name, study in self.studies.items()
            if study.plan
        }

    def epsilon_spent(self, delta: float) -> float:
        """Return the epsilon of all that was reserved, rounded up; infinite after any training without privacy."""
        return float("inf") if self.infinite else spent(list(self.reserved().values()), delta, self.orders[0])

    def epsilon_spent_if_broken(self, delta: float) -> float:
        """Return the same by the second account; equal where no study shares noise."""
        charges = if_broken(list(self.reserved().values()))
        return float("inf") if self.infinite else spent(charges, delta, self.orders[1])

    def by_filter_and_pld(self, delta: float) -> tuple[float, float]:
        """Return the spend's epsilon by the filter and by composed PLDs; the second decides nothing across studies."""
        charges = list(self.reserved().values())
        return filter_epsilon(charges, delta, self.orders[0]), composed_epsilon(charges, delta)
