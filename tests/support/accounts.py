"""A ledger's rows checked and added up by code of its own: nothing here is imported from confide.

Epsilon of one study is dp-accounting's PLD; of several, the Renyi filter from its closed formula. So an error in the
product's account, rules or filter shows as a difference.
"""

import hashlib
import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from dp_accounting import NeighboringRelation, dp_event
from dp_accounting.pld import PLDAccountant
from scipy.special import gammaln, logsumexp

Rows = list[tuple[dict[str, Any], str]]


@dataclass(frozen=True)
class Spending:
    """So many steps and validation releases of one plan."""

    sampling_probability: float
    noise_multiplier: float
    num_steps: int
    validation_noise_multiplier: float = 10.0
    num_releases: int = 0


@lru_cache(maxsize=4096)
def renyi_of_step(order: int, sampling_probability: float, noise_multiplier: float) -> float:
    """Of the Poisson-subsampled Gaussian at integer order (Mironov, Talwar, Zhang, arXiv 1908.10530, section 3.3)."""
    q, terms = sampling_probability, []
    for k in range(order + 1):
        if q == 1 and k < order:
            continue
        ways = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
        chance = k * math.log(q) + ((order - k) * math.log1p(-q) if k < order else 0.0)
        terms.append(ways + chance + (k * k - k) / (2 * noise_multiplier**2))
    return float(logsumexp(terms)) / (order - 1)


def renyi(spending: Spending, order: int) -> float:
    step = renyi_of_step(order, spending.sampling_probability, spending.noise_multiplier)
    return spending.num_steps * step + spending.num_releases * order / (2 * spending.validation_noise_multiplier**2)


def filter_epsilon(spendings: list[Spending], delta: float, order: int) -> float:
    """By the conversion of Canonne, Kamath and Steinke, arXiv 2004.00010, proposition 12.

    Or nothing, where total variation alone is at most delta (Bretagnolle and Huber: at most sqrt(1 - exp(-KL))).
    """
    total = sum(renyi(spending, order) for spending in spendings)
    if -math.expm1(-total) < delta**2:
        return 0.0
    return max(0.0, total + math.log1p(-1 / order) - math.log(delta * order) / (order - 1))


def renyi_budget(max_epsilon: float, delta: float, order: int) -> float:
    """The most divergence at an order that still gives ``max_epsilon`` at ``delta``."""
    by_conversion = max_epsilon - math.log1p(-1 / order) + math.log(delta * order) / (order - 1)
    return max(by_conversion, -math.log1p(-(delta**2)))


@lru_cache(maxsize=4096)
def pld_epsilon(spendings: tuple[Spending, ...], delta: float) -> float:
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-4)
    for spending in spendings:
        step = dp_event.PoissonSampledDpEvent(
            spending.sampling_probability, dp_event.GaussianDpEvent(spending.noise_multiplier)
        )
        if spending.num_steps:
            accountant.compose(step, spending.num_steps)
        if spending.num_releases:
            release = dp_event.GaussianDpEvent(spending.validation_noise_multiplier)
            accountant.compose(release, spending.num_releases)
    return float(accountant.get_epsilon(delta))


def epsilon(spendings: list[Spending], delta: float, order: int) -> float:
    """One study by PLD, several by the filter, none for nothing."""
    if not spendings:
        return 0.0
    return pld_epsilon(tuple(spendings), delta) if len(spendings) == 1 else filter_epsilon(spendings, delta, order)


def alone(plan: dict[str, Any]) -> float:
    """The noise multiplier of one share; of the plan where nothing is shared."""
    sharing = plan.get("sharing")
    if not sharing:
        return float(plan["noise_multiplier"])
    return math.floor(math.sqrt(sharing["share_variance"] - 16) / 2 ** sharing["grid_bits"] * 1e6) / 1e6


@dataclass
class Replay:
    """Rows, one after the other, and everything that is wrong with them.

    Attributes:
        allotted, reserved: (steps, releases) by study; ``plans``: the row's plan.
        attempts: reservations by (study, lineage, what, round); ``asked`` the same with input and run.
        sealed: hash of the file by number of the RESERVE row.
        alone: studies that fitted by PLD only: they count as a whole for ever.
        order_if_broken, cap_if_broken: of the second account, which values a plan that shares noise by one share.
        released: statement and hash of the masked share, by the number of its RESERVE row.
    """

    problems: list[str] = field(default_factory=list)
    number: int = 0
    head: str = "0" * 64
    order: int = 0
    cap: tuple[float, float] = (0.0, 1e-5)
    order_if_broken: int = 0
    cap_if_broken: float = 0.0
    released: dict[int, tuple[str, str]] = field(default_factory=dict)
    plans: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    allotted: dict[str, tuple[int, int]] = field(default_factory=dict)
    reserved: dict[str, tuple[int, int]] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)
    over: set[str] = field(default_factory=set)  # closed studies; "" once the ledger is retired
    attempts: dict[tuple[Any, ...], list[int]] = field(default_factory=lambda: defaultdict(list))
    asked: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    hashes: dict[int, str] = field(default_factory=dict)
    sealed: dict[int, str] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)

    def add(self, row: dict[str, Any], row_hash: str) -> None:
        text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        self.require(hashlib.sha256(text.encode()).hexdigest() == row_hash, "its hash is another")
        self.require((row["number"], row["previous"]) == (self.number + 1, self.head), "the chain is broken")
        self.number, self.head = row["number"], row_hash
        self.hashes[self.number] = row_hash
        getattr(self, f"add_{row['kind']}")(row)

    def require(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(f"row {self.number}: {problem}")

    def spendings(self, reserved: dict[str, tuple[int, int]], *, broken: bool = False) -> list[Spending]:
        return [
            Spending(
                plan["sampling_probability"],
                alone(plan) if broken else plan["noise_multiplier"],
                reserved[study][0],
                plan["validation_noise_multiplier"],
                reserved[study][1],
            )
            for study, plan in self.plans.items()
            if plan and reserved[study] != (0, 0)
        ]

    def spent(self, reserved: dict[str, tuple[int, int]]) -> float:
        return epsilon(self.spendings(reserved), self.cap[1], self.order)

    def spent_if_broken(self, reserved: dict[str, tuple[int, int]]) -> float:
        return epsilon(self.spendings(reserved, broken=True), self.cap[1], self.order_if_broken)

    def require_within(self, reserved: dict[str, tuple[int, int]]) -> None:
        first, second = self.spent(reserved), self.spent_if_broken(reserved)
        self.require(first <= self.cap[0], f"with it, {first} above {self.cap}")
        self.require(second <= self.cap_if_broken, f"with it, if broken, {second} above {self.cap_if_broken}")

    def by_filter(self, study: str, steps: int, releases: int) -> tuple[float, float]:
        """What would be spent with a charge more, by the filter of each account."""
        before = self.reserved[study]
        after = {**self.reserved, study: (before[0] + steps, before[1] + releases)}
        first, second = self.spendings(after), self.spendings(after, broken=True)
        delta = self.cap[1]
        return filter_epsilon(first, delta, self.order), filter_epsilon(second, delta, self.order_if_broken)

    def add_dataset(self, row: dict[str, Any]) -> None:
        self.require(self.number == 1, "a second dataset row")
        self.order, self.order_if_broken = row["order"], row.get("order_if_broken", row["order"])
        self.add_policy(row)

    def add_policy(self, row: dict[str, Any]) -> None:
        self.cap = (row["max_epsilon"], row["max_delta"])
        self.cap_if_broken = row.get("max_epsilon_if_broken", row["max_epsilon"])

    def require_cap(self, row: dict[str, Any]) -> None:
        second = row.get("max_epsilon_if_broken", row["max_epsilon"])
        said = (row["max_epsilon"], row["max_delta"], second)
        self.require(said == (*self.cap, self.cap_if_broken), "opened or reserved under another cap")

    def add_approve(self, row: dict[str, Any]) -> None:
        self.require(self.number > 1, "an approval before the dataset row")

    def add_open(self, row: dict[str, Any]) -> None:
        study, allotted = row["study"], (row["steps"], row["releases"])
        self.require(study not in self.plans and "" not in self.over, "opened twice, or after the end")
        self.require(None not in self.plans.values(), "opened though the dataset was used without privacy")
        self.require_cap(row)
        self.require(allotted == (row["plan"]["num_steps"], row["plan"]["validation_releases"]), "half a study")
        self.plans[study], self.allotted[study], self.reserved[study] = row["plan"], allotted, (0, 0)
        returned = self.over - self.alone
        most = {name: (self.reserved if name in returned else self.allotted)[name] for name in self.allotted}
        self.require_within(most)
        by_filter = filter_epsilon(self.spendings(most), self.cap[1], self.order)
        if_broken = filter_epsilon(self.spendings(most, broken=True), self.cap[1], self.order_if_broken)
        if by_filter > self.cap[0] or if_broken > self.cap_if_broken:
            self.alone.add(study)

    def add_infinite(self, row: dict[str, Any]) -> None:
        self.plans[row["study"]], self.reserved[row["study"]] = None, (0, 0)

    def add_reserve(self, row: dict[str, Any]) -> None:
        study, key = row["study"], (row["study"], row["lineage"], row["what"], row["round"])
        asked = (*key, row["input_sha256"], row["run_sha256"])
        self.require(study in self.plans and not {study, ""} & self.over, "reserved in a study that is not open")
        self.require_cap(row)
        self.require(asked not in {self.asked[item] for item in self.sealed}, "a resend was charged")
        self.attempts[key].append(self.number)
        self.asked[self.number] = asked
        self.require(len(self.attempts[key]) == row["attempt"] <= 2, "more than one retry")
        before = self.reserved[study]
        self.reserved[study] = (before[0] + row["steps"], before[1] + row["releases"])
        if self.plans[study]:
            self.require_within(self.reserved)
            within = all(a <= b for a, b in zip(self.reserved[study], self.allotted[study], strict=True))
            self.require(within, f"reserved {self.reserved[study]} of {self.allotted[study]}")

    def add_seal(self, row: dict[str, Any]) -> None:
        self.require(row["reserve"] in self.asked and row["reserve"] not in self.sealed, "a seal of nothing")
        self.sealed[row["reserve"]] = row["sha256"]

    def add_release(self, row: dict[str, Any]) -> None:
        """A share left, once for its round."""
        number = row["reserve"]
        left = {self.asked[other][:4] for other in self.released}
        self.require(number in self.sealed and self.asked[number][:4] not in left, "a round's second release")
        plan = self.plans[self.asked[number][0]]
        self.require(bool(plan and plan.get("sharing")), "a release of a share that is none")
        self.require(not {self.asked[number][0], ""} & self.over, "released in a study that is not open")
        self.require_within(self.reserved)
        self.released[number] = (row["statement_sha256"], row["sha256"])

    def add_ack(self, row: dict[str, Any]) -> None:
        self.require(row["reserve"] in self.sealed and row["reserve"] not in self.acknowledged, "an ACK of nothing")
        self.acknowledged.add(row["reserve"])

    def add_close(self, row: dict[str, Any]) -> None:
        self.require(row["study"] in self.plans and row["study"] not in self.over, "closed twice")
        self.over.add(row["study"])

    def add_retire(self, row: dict[str, Any]) -> None:
        self.require("" not in self.over, "retired twice")
        self.over.add("")


def replay(rows: Rows) -> Replay:
    """Every row, added up; see ``problems``."""
    result = Replay()
    for row, row_hash in rows:
        result.add(row, row_hash)
    return result
