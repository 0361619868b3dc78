"""The ledger's half of `confide verify`: it checks every row, and adds all of them up once more.

It imports nothing of ours but the other files of `verify`, on purpose: a reader who does not trust Confide reads these
files, or writes them anew.

There are two accounts of the same charges. The first holds as long as shared noise is what its plans say. The second
holds if it is broken: it values a plan that shares noise by one share alone. Other plans weigh the same in both.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from confide.common.verify.fields import Row, faults, show
from confide.common.verify.findings import TOLERANCE
from confide.common.verify.sharing import if_broken, plan_faults

_CAP = " max_epsilon max_delta max_epsilon_if_broken?"
_KINDS = {
    "dataset": "dataset unit max_records_per_group order order_if_broken? simulated secret_commitment?" + _CAP,
    "policy": _CAP,
    "approve": "study run_sha256",
    "open": "study plan steps releases returns accountant people?" + _CAP,
    "infinite": "study",
    "reserve": "study lineage round what steps releases input_sha256 run_sha256 attempt coins people?" + _CAP,
    "seal": "reserve sha256 bytes",
    "release": "reserve statement_sha256 members sha256 bytes",
    "ack": "reserve",
    "close": "study",
    "retire": "",
}


# A charge is a plan with numbers of its steps and validation releases. `Recompute` gives epsilon of charges at a delta:
# by PLD, or with an order by the Renyi filter at that order (arXiv 2008.11193).
Charge = tuple[Row, int, int]
Recompute = Callable[[Sequence[Charge], float, int | None], float]
Cap = tuple[float, ...]  # epsilon, delta and, where a row names it, the second account's epsilon


@dataclass
class Study:
    """The allotment that a study may spend in all, and the part of it that was reserved."""

    allotted: Charge
    reserved: Charge
    returns: bool  # CLOSE gives back the part that was never reserved
    closed: bool = False


class Ledger:
    """The rows of one dataset, taken in one after the other.

    ``problems`` lists all faults. ``number`` and ``head`` (its hash) are those of the last row; ``first`` is the
    dataset row. ``caps`` holds all caps, the last is in force. ``studies`` holds the studies with privacy.
    """

    def __init__(self, recompute: Recompute) -> None:
        self.problems, self.caps = list[str](), list[Cap]([(0.0, 1e-5)])
        self.number, self.head, self.first = 0, "0" * 64, Row()
        self.studies, self.infinite = dict[str, Study](), set[str]()
        self._recompute, self._salts = recompute, set[str]()
        self._attempts, self._sealed = Counter[tuple[Any, ...]](), dict[int, bool]()
        self._keys, self._released = dict[int, tuple[Any, ...]](), set[tuple[Any, ...]]()
        self._retired = self._unsettled = False

    def add(self, row_hash: object, row: Any) -> None:
        """Take in the next row; a row with a fault counts for nothing but its place."""
        self.number += 1
        wrong = self._faults(row_hash, row)
        self.problems += [f"row {self.number}: {problem}" for problem in wrong]
        self.head = str(row_hash)
        if not wrong:
            self._salts.add(row["salt"])
            self._retired |= row["kind"] == "retire"
            getattr(self, f"_{row['kind']}", Row)(row)  # an approval costs nothing

    def order(self) -> int | None:
        """Return None if PLD decides (one study spent, its plan chosen before any result), else the filter's order."""
        spending = [study for study in self.studies.values() if any(study.reserved[1:])]
        return None if len(spending) <= 1 else self.first.get("order", 2)

    def spent(self, order: int | None) -> float:
        """Return epsilon of all that was reserved, at the delta in force."""
        return self._epsilon([study.reserved for study in self.studies.values()], order)

    def spent_by_account(self) -> list[tuple[str, float, float]]:
        """Return for each account its condition in words, its epsilon of all that was reserved, and its cap.

        The second is left out if it cannot differ from the first.
        """
        counted = self._accounts([study.reserved for study in self.studies.values()])
        by_pld = self.order() is None
        return [(words, self._epsilon(own, None if by_pld else order), cap) for words, own, cap, order in counted]

    @property
    def shares_noise(self) -> bool:
        """Return whether any study's institutions share noise."""
        return any("sharing" in study.allotted[0] for study in self.studies.values())

    def settle(self) -> None:
        """Compare the reserved sum with both caps that every row since the last comparison had to keep."""
        for words, spent, most in self.spent_by_account() if self._unsettled else []:
            told = f"up to here epsilon {spent:.6g} is reserved{words}, the cap is {self.caps[-1]}"
            self._require(spent <= most * TOLERANCE, told)
        self._unsettled = False

    def _epsilon(self, charges: Sequence[Charge], order: int | None) -> float:
        return float("inf") if self.infinite else self._recompute(charges, self.caps[-1][1], order)

    def _accounts(self, charges: Sequence[Charge]) -> list[tuple[str, list[Charge], float, int]]:
        """Return for each account its condition in words, the charges as it values them, its cap and its order."""
        cap, order = self.caps[-1], self.first.get("order", 2)
        first = (list(charges), cap[0], order)
        broken = [(if_broken(plan), steps, releases) for plan, steps, releases in charges]
        second = (broken, cap[2] if len(cap) > 2 else cap[0], self.first.get("order_if_broken", order))
        return [("", *first)] + ([(" if shared noise is broken", *second)] if second != first else [])

    def _require(self, holds: bool, problem: str) -> None:  # noqa: FBT001 - reads as an assertion
        if not holds:
            self.problems.append(f"row {self.number}: {problem}")

    def _faults(self, row_hash: object, row: Any) -> list[str]:
        kind = row.get("kind") if isinstance(row, dict) else None
        if not isinstance(kind, str) or kind not in _KINDS:
            return [f"kind = {show(kind)} must be one of {', '.join(_KINDS)}"]
        wrong = faults(row, f"number previous salt time kind {_KINDS[kind]}")
        wrong += [f"plan: {fault}" for fault in (plan_faults(row.get("plan")) if kind == "open" else [])]
        if (kind == "dataset") != (self.number == 1):
            wrong.append("the first row, and no other, is the dataset row")
        if (row.get("number"), row.get("previous")) != (self.number, self.head):
            wrong.append("its number or previous does not follow from the row before")
        text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        if hashlib.sha256(text.encode()).hexdigest() != row_hash:
            wrong.append("its hash is not that of its body")
        return wrong or (["its salt was used before"] if row["salt"] in self._salts else [])

    def _require_cap(self, row: Row) -> None:
        said = _cap(row)
        self._require(said == self.caps[-1], f"says that the cap is {said}, but {self.caps[-1]} is in force")

    def _dataset(self, row: Row) -> None:
        self.first, self.caps = row, [_cap(row)]
        self._require(not row["simulated"], "simulated = true: the ledger of a test or a simulation")

    def _policy(self, row: Row) -> None:
        self.settle()
        self.caps.append(_cap(row))

    def _infinite(self, row: Row) -> None:
        self.infinite.add(row["study"])
        self._require(not self.infinite, f"study {show(row['study'])} ran without privacy: INFINITE")

    def _open(self, row: Row) -> None:
        self.settle()
        self._require_cap(row)
        plan, new = row["plan"], row["study"] not in self.infinite and row["study"] not in self.studies
        self._require(new, f"study {show(row['study'])} was opened before")
        self._require(not self._retired, "a retired ledger opens nothing")
        self._require(plan["unit"] == self.first.get("unit"), f"plan.unit = {plan['unit']!r} is not the dataset's")
        few = row["steps"] <= plan["num_steps"] and row["releases"] <= plan["validation_releases"]
        self._require(few, f"{row['steps']} steps and {row['releases']} releases are more than its plan has")
        if new:
            self._allot(row, (plan, row["steps"], row["releases"]))

    def _allot(self, row: Row, allotted: Charge) -> None:
        """Check that an allotment fits beside all that others may still spend.

        An allotment that the filter does not admit (PLD may admit the first) is never given back, whatever its row
        says. Otherwise neither account would cover a later study, chosen after the results of this one.
        """
        others = [each.reserved if each.closed and each.returns else each.allotted for each in self.studies.values()]
        returns, alone = row["returns"], not any(any(charge[1:]) for charge in others)
        for words, charges, cap, order in self._accounts([*others, allotted]):
            by_filter = self._recompute(charges, self.caps[-1][1], order)
            epsilon = self._recompute(charges[-1:], self.caps[-1][1], None) if alone else by_filter
            told = f"with its allotment {epsilon:.6g} may be spent{words}, the cap is {cap}"
            self._require(epsilon <= cap * TOLERANCE, told)
            returns = returns and by_filter <= cap * TOLERANCE
        self.studies[row["study"]] = Study(allotted, (row["plan"], 0, 0), returns)

    def _reserve(self, row: Row) -> None:
        self._require_cap(row)
        name, key = row["study"], tuple(row[part] for part in ("study", "lineage", "what", "round"))
        self._attempts[key] += 1
        self._require(row["attempt"] == self._attempts[key], f"attempt must be {self._attempts[key]} of this round")
        self._require(row["coins"] == "os", f"coins = {show(row['coins'])}: the noise of a test")
        paid = row["steps"] if row["what"] == "update" else row["releases"]
        self._require(paid > 0, f"pays nothing for what it reserves, which is {row['what']!r}")
        self._require(name in self.studies or name in self.infinite, f"study {show(name)} was never opened")
        self._sealed[self.number], self._keys[self.number] = False, key
        if name in self.studies:
            self._charge(self.studies[name], row["steps"], row["releases"])

    def _charge(self, study: Study, steps: int, releases: int) -> None:
        self._require(not study.closed and not self._retired, "the study is closed, or the ledger retired")
        plan, *before = study.reserved
        steps, releases = before[0] + steps, before[1] + releases
        few = steps <= study.allotted[1] and releases <= study.allotted[2]
        self._require(few, f"{steps} steps and {releases} releases are reserved with it: more than was allotted")
        study.reserved = (plan, steps, releases)
        self._unsettled = True

    def _seal(self, row: Row) -> None:
        self._require(self._sealed.get(row["reserve"]) is False, f"row {row['reserve']} is no unsealed reserve")
        self._sealed[row["reserve"]] = True

    def _release(self, row: Row) -> None:
        """Check that a share of a secure sum left once, after its SEAL, with enough members and within both caps."""
        self._require(self._sealed.get(row["reserve"]) is True, f"row {row['reserve']} is no sealed reserve")
        name, lineage, _, number = self._keys.get(row["reserve"], (None, None, None, None))
        study, left = self.studies.get(name), (name, lineage, number)
        self._require(left not in self._released, f"a share of round {number} of {show(name)} left before")
        self._released.add(left)
        sharing = study.allotted[0].get("sharing") if study else None
        self._require(sharing is not None, f"the institutions of study {show(name)} share no noise")
        if study and sharing:
            few = f"{row['members']} members are fewer than its plan's {sharing['min_members']}"
            self._require(row["members"] >= sharing["min_members"], few)
            self._require(not study.closed and not self._retired, "the study is closed, or the ledger retired")
        self._unsettled = True

    def _ack(self, row: Row) -> None:
        self._require(self._sealed.get(row["reserve"]) is True, f"row {row['reserve']} is no sealed reserve")

    def _close(self, row: Row) -> None:
        study = self.studies.get(row["study"])
        is_open = not study.closed if study else row["study"] in self.infinite
        self._require(is_open, f"study {show(row['study'])} is not open")
        if study:
            study.closed = True


def _cap(row: Row) -> Cap:
    return tuple(row[name] for name in ("max_epsilon", "max_delta", "max_epsilon_if_broken") if name in row)
