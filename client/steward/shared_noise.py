"""Noise that institutions share, in words: each epsilon with its condition, and the members that a person compares."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from confide.client.answers.proposed_runs import read_offers
from confide.client.privacy.account import Account
from confide.client.privacy.decision import partner_problems
from confide.client.privacy.policy import cap_of
from confide.client.site.installation import Institution
from confide.common.config.run import RunConfig
from confide.common.config.sections import SECURE_SUM
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.secure.conditions import HIGHEST, epsilon_if_colluding, epsilon_or_infinite
from confide.common.protocol.enrolment import partner_fingerprint, same_fingerprint


@dataclass(frozen=True)
class SharedNoise:
    """The meaning of a run whose institutions share noise.

    Attributes:
        max_colluding: number of institutions that may be in league with the server.
        min_members: the fewest institutions in a sum.
        colluding: epsilon of the whole plan by the number that are.
        cost: epsilon of the whole plan if shared noise is broken.
        spent, cap: the same of all that was reserved so far, and the most that is allowed for ever.
        own: name of this institution; ``fingerprints`` of all institutions by name.
    """

    max_colluding: int
    min_members: int
    colluding: dict[int, float]
    cost: float
    spent: float
    cap: float
    own: str
    fingerprints: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``; None stands for no bound."""
        colluding = {number: _or_none(value) for number, value in self.colluding.items()}
        return {**asdict(self), "cost": _or_none(self.cost), "colluding": colluding}

    def lines(self) -> list[str]:
        """Return the conditions of the first number, the second number, and the members."""
        num, allowed = len(self.fingerprints), self.max_colluding
        more = [f"{_shown(value)} if {number} are" for number, value in self.colluding.items() if number > allowed]
        names = [
            f"    {name!r}: {fingerprint}{' (this institution: read it to the others)' if name == self.own else ''}"
            for name, fingerprint in self.fingerprints.items()
        ]
        return [
            f"    which holds if at most {allowed} of these {num} institutions are in league with the server; "
            f"{', '.join(more)}",
            f"    if that is broken, it would cost epsilon {_shown(self.cost)}; spent so far {self.spent} of "
            f"{self.cap:g}",
            f"    every sum has at least {self.min_members} of them; a second sum of one round could open only if "
            f"{2 * self.min_members - num - allowed} put back an old copy of their disks",
            f"  its noise is shared by {num} institutions, with these fingerprints of their keys:",
            *names,
            "  Compare each fingerprint by telephone with that institution. The first number holds only if at most "
            f"{allowed} of these {num} are in league with the server.",
        ]


def shared_noise(run: RunConfig, plan: PrivacyPlan, site: Institution, account: Account) -> SharedNoise | None:
    """Return the meaning of a run's shared noise at a site; None where each institution adds all of the noise.

    Args:
        run: locked.
        plan: of the run here, at the policy's delta.
        site: whose policy, name and keys count.
        account: of its ledger.
    """
    if plan.sharing is None:
        return None
    cap = cap_of(site.config.policy).if_broken
    return SharedNoise(
        max_colluding=plan.sharing.max_colluding,
        min_members=plan.sharing.min_members,
        colluding=epsilon_if_colluding(plan),
        cost=epsilon_or_infinite(plan.if_broken),
        spent=account.epsilon_spent_if_broken(cap.max_delta) if account.number else 0.0,
        cap=cap.max_epsilon,
        own=site.config.institution.name,
        fingerprints={name: partner_fingerprint(key) for name, key in run.study.keys.items()},
    )


@dataclass(frozen=True)
class Partner:
    """An institution of a run with shared noise, as a person compares it.

    Attributes:
        name: in the run.
        fingerprint: of the key that the run lists for it.
        state: `here` for this institution, `compared` if [partners] has this fingerprint, `differs` or `unknown`.
    """

    name: str
    fingerprint: str
    state: Literal["here", "compared", "differs", "unknown"]


def shared_runs(offers: Path | None) -> list[RunConfig]:
    """Return the runs in a folder of offers in which institutions share noise."""
    return [run for run in (read_offers(offers) if offers else []) if run.federation.aggregation == SECURE_SUM]


def own_fingerprint(site: Institution) -> str:
    """Return the fingerprint that this institution reads to the others."""
    return partner_fingerprint(site.identity.public_hex())


def partners_of(runs: Sequence[RunConfig], site: Institution) -> list[Partner]:
    """Return the institutions of runs with shared noise. One that is listed with two keys is in it twice."""
    keys = {(name, key): None for run in runs for name, key in run.study.keys.items()}
    return [_partner(name, partner_fingerprint(key), site) for name, key in sorted(keys)]


def _partner(name: str, fingerprint: str, site: Institution) -> Partner:
    known = site.config.partners.get(name)
    if name == site.config.institution.name and fingerprint == own_fingerprint(site):
        return Partner(name, fingerprint, "here")
    if known is None:
        return Partner(name, fingerprint, "unknown")
    return Partner(name, fingerprint, "compared" if same_fingerprint(known, fingerprint) else "differs")


def partners_compared(runs: Sequence[RunConfig], site: Institution) -> tuple[Literal["ok", "problem"], str]:
    """Return doctor's verdict: a person has compared the keys of all institutions that share noise in these runs."""
    own, partners = (site.config.institution.name, site.identity.public_hex()), site.config.partners
    shared = [run.study.keys for run in runs if run.federation.aggregation == SECURE_SUM]
    problems = {problem: None for keys in shared for problem in partner_problems(keys, *own, partners)}
    if problems:
        return "problem", "; ".join(problems)
    names = {name for keys in shared for name in keys} - {own[0]}
    if not names:
        return "ok", "are looked at once a run is offered in which institutions share noise"
    return "ok", f"[partners] has the keys that the run lists for {', '.join(sorted(names))}"


def _shown(epsilon: float) -> str:
    return f"without a bound up to {HIGHEST:g}" if epsilon > HIGHEST else str(epsilon)


def _or_none(epsilon: float) -> float | None:
    return epsilon if epsilon <= HIGHEST else None
