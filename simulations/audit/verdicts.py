"""The results of an audit: its attacks by observer, each beside what is stated."""

from dataclasses import dataclass, field

ONE_RUN = "one run"
TRIALS = "independent canaries"


@dataclass(frozen=True)
class Effort:
    """The size of an audit.

    Attributes:
        canaries: that are in one run together, each with probability 1/2.
        lone: runs of one round with at most one canary and a bystander.
        confidence: with which all bounds of the audit hold together.
    """

    canaries: int = 4000
    lone: int = 1000
    confidence: float = 0.95


@dataclass(frozen=True)
class Attack:
    """One attack's bound."""

    name: str
    method: str
    bound: float
    hits: float  # share of members that it accuses, or of its guesses that are right
    false_alarms: float | None

    def as_json(self) -> dict[str, object]:
        """Return its fields."""
        return {
            "attack": self.name,
            "method": self.method,
            "epsilon_at_least": self.bound,
            "hit_rate": round(self.hits, 4),
            "false_alarm_rate": None if self.false_alarms is None else round(self.false_alarms, 4),
        }


@dataclass(frozen=True)
class View:
    """The attacks of one observer, beside what is stated against it."""

    who: str
    stated: float
    attacks: list[Attack] = field(default_factory=list)

    @property
    def bound(self) -> float:
        """The largest bound of its attacks."""
        return max(attack.bound for attack in self.attacks)

    @property
    def holds(self) -> bool:
        """True if no attack refutes what is stated."""
        return self.bound <= self.stated

    def as_json(self) -> dict[str, object]:
        """Return stated epsilon, bound and attacks."""
        return {
            "observer": self.who,
            "stated_epsilon": self.stated,
            "epsilon_at_least": self.bound,
            "holds": self.holds,
            "attacks": [attack.as_json() for attack in self.attacks],
        }


@dataclass(frozen=True)
class Audit:
    """The work that was done, and what each observer found."""

    effort: Effort
    rounds: int
    steps: int
    seconds: float
    views: list[View]

    @property
    def holds(self) -> bool:
        """True if no observer refutes what is stated."""
        return all(view.holds for view in self.views)

    def as_json(self) -> dict[str, object]:
        """Return all of it."""
        return {
            "canaries": self.effort.canaries,
            "lone_runs": self.effort.lone,
            "confidence": self.effort.confidence,
            "rounds": self.rounds,
            "steps": self.steps,
            "seconds": self.seconds,
            "holds": self.holds,
            "observers": [view.as_json() for view in self.views],
        }
