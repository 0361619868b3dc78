"""The ledger's half of `confide verify`: it checks every row, and adds all of them up once more.

It imports nothing of ours on purpose: a reader who does not trust Confide reads this file and `command.py`, or writes
them anew.
"""

import hashlib
import json
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

TOLERANCE = 1 + 1e-9  # between two computations of one number; claims are rounded up to 4 digits anyway
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
Row = dict[str, Any]

# The rule of a field, the same in every row: a type and its range, or a pattern that fits the whole text. In these
# ranges the accountants can be trusted, and end soon. NaN is in no range.
_Rule = tuple[type, Any, Any] | str
_HASH, _COUNT, _EPSILON = "[0-9a-f]{64}", (int, 0, 10**6), (float, 0.0, 1e6)
_RULES: dict[str, _Rule] = {
    **dict.fromkeys(("study", "dataset", "lineage", "institution", "status", "coins", "accountant"), "(?s).{1,256}"),
    **dict.fromkeys(("hash", "previous", "sha256", "input_sha256", "run_sha256", "people", "secret_commitment"), _HASH),
    **dict.fromkeys(("returns", "simulated"), (bool, False, True)),
    **dict.fromkeys(("number", "reserve", "declared_units", "max_records_per_group"), (int, 1, 10**15)),
    **dict.fromkeys(("time", "bytes", "round"), (int, 0, 10**15)),
    **dict.fromkeys(("steps", "releases", "num_rounds", "num_steps", "num_releases", "validation_releases"), _COUNT),
    **dict.fromkeys(("noise_multiplier", "validation_noise_multiplier"), (float, 0.05, 1e4)),
    **dict.fromkeys(("clip_norm", "head_weight"), (float, 1e-6, 1e6)),
    **dict.fromkeys(("delta", "max_delta", "target_delta"), (float, 1e-15, 0.5)),
    **dict.fromkeys(("epsilon", "epsilon_of_the_whole_plan", "max_epsilon", "epsilon_cap"), _EPSILON),
    **{"sampling_probability": (float, 1e-4, 1.0), "order": (int, 2, 256), "attempt": (int, 1, 2)},
    **{"unit": "record|group", "what": "update|validation", "clipping": "automatic|abadi", "salt": "[0-9a-f]{32}"},
    **{"adjacency": "add or remove .*", "epsilon_spent": (float, 0.0, float("inf"))},
}
PLAN = (
    "unit sampling_probability num_steps declared_units clip_norm clipping noise_multiplier target_delta head_weight "
    "validation_releases validation_noise_multiplier"
)
_CAP = " max_epsilon max_delta"
_KINDS = {
    "dataset": "dataset unit max_records_per_group order simulated secret_commitment?" + _CAP,
    "policy": _CAP,
    "approve": "study run_sha256",
    "open": "study plan steps releases returns accountant people?" + _CAP,
    "infinite": "study",
    "reserve": "study lineage round what steps releases input_sha256 run_sha256 attempt coins people?" + _CAP,
    "seal": "reserve sha256 bytes",
    "ack": "reserve",
    "close": "study",
    "retire": "",
}


# A charge is a plan with numbers of its steps and validation releases. `Recompute` gives epsilon of charges at a delta:
# by PLD, or with an order by the Renyi filter at that order (arXiv 2008.11193).
Charge = tuple[Row, int, int]
Recompute = Callable[[Sequence[Charge], float, int | None], float]


@dataclass
class Item:
    """The findings on one institution's row, a run as a whole, or one ledger; ``epsilon`` is as computed here."""

    name: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    epsilon: float | None = None
    claimed: float | None = None
    delta: float | None = None


@dataclass
class Study:
    """The allotment that a study may spend in all, and the part of it that was reserved."""

    allotted: Charge
    reserved: Charge
    returns: bool  # CLOSE gives back the part that was never reserved
    closed: bool = False


def show(value: object) -> str:
    """Return a value as it is printed: short, and without control characters."""
    return _SHORT.repr(value)


def faults(value: Any, names: str, *, only: bool = True) -> list[str]:
    """Return the faults of an object that must have these fields (or may: "name?"), and with ``only`` no others."""
    if not isinstance(value, dict):
        return [f"{show(value)} must be an object"]
    fields = [name.rstrip("?") for name in names.split() if name[-1] != "?" or name[:-1] in value]
    wrong = [f"{name} is missing" for name in fields if name not in value]
    wrong += [f"{show(name)} is unknown: nobody can say what it means" for name in value if only and name not in fields]
    broken = [(n, _broken(value[n], _RULES[n])) for n in fields if n in value and n in _RULES]
    return wrong + [f"{name} = {show(value[name])} {rule}" for name, rule in broken if rule]


def _broken(value: Any, rule: _Rule) -> str:
    """Return the rule that a value breaks, in words; "" if it keeps the rule."""
    if isinstance(rule, str):
        return "" if isinstance(value, str) and re.fullmatch(rule, value) else f"must be text like {rule}"
    kind, low, high = rule
    fits = type(value) in (kind, int if kind is float else kind) and low <= value <= high
    return "" if fits else f"must be {kind.__name__} from {low} to {high}"


class Ledger:
    """The rows of one dataset, taken in one after the other.

    ``problems`` lists all faults. ``number`` and ``head`` (its hash) are those of the last row; ``first`` is the
    dataset row. ``caps`` holds all caps, the last is in force. ``studies`` holds the studies with privacy.
    """

    def __init__(self, recompute: Recompute) -> None:
        self.problems, self.caps = list[str](), [(0.0, 1e-5)]
        self.number, self.head, self.first = 0, "0" * 64, Row()
        self.studies, self.infinite = dict[str, Study](), set[str]()
        self._recompute, self._salts = recompute, set[str]()
        self._attempts, self._sealed = Counter[tuple[Any, ...]](), dict[int, bool]()
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
        reserved = [study.reserved for study in self.studies.values()]
        return float("inf") if self.infinite else self._recompute(reserved, self.caps[-1][1], order)

    def settle(self) -> None:
        """Compare the reserved sum with the cap that every reserve since the last comparison had to keep."""
        if self._unsettled:
            spent, cap = self.spent(self.order()), self.caps[-1]
            self._require(spent <= cap[0] * TOLERANCE, f"up to here epsilon {spent:.6g} is reserved, the cap is {cap}")
        self._unsettled = False

    def _require(self, holds: bool, problem: str) -> None:  # noqa: FBT001 - reads as an assertion
        if not holds:
            self.problems.append(f"row {self.number}: {problem}")

    def _faults(self, row_hash: object, row: Any) -> list[str]:
        kind = row.get("kind") if isinstance(row, dict) else None
        if not isinstance(kind, str) or kind not in _KINDS:
            return [f"kind = {show(kind)} must be one of {', '.join(_KINDS)}"]
        wrong = faults(row, f"number previous salt time kind {_KINDS[kind]}")
        wrong += [f"plan: {fault}" for fault in (faults(row.get("plan"), PLAN) if kind == "open" else [])]
        if (kind == "dataset") != (self.number == 1):
            wrong.append("the first row, and no other, is the dataset row")
        if (row.get("number"), row.get("previous")) != (self.number, self.head):
            wrong.append("its number or previous does not follow from the row before")
        text = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        if hashlib.sha256(text.encode()).hexdigest() != row_hash:
            wrong.append("its hash is not that of its body")
        return wrong or (["its salt was used before"] if row["salt"] in self._salts else [])

    def _require_cap(self, row: Row) -> None:
        said = (row["max_epsilon"], row["max_delta"])
        self._require(said == self.caps[-1], f"says that the cap is {said}, but {self.caps[-1]} is in force")

    def _dataset(self, row: Row) -> None:
        self.first, self.caps = row, [(row["max_epsilon"], row["max_delta"])]
        self._require(not row["simulated"], "simulated = true: the ledger of a test or a simulation")

    def _policy(self, row: Row) -> None:
        self.settle()
        self.caps.append((row["max_epsilon"], row["max_delta"]))

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
        cap, delta = self.caps[-1]
        others = [each.reserved if each.closed and each.returns else each.allotted for each in self.studies.values()]
        by_filter = self._recompute([*others, allotted], delta, self.first.get("order", 2))
        epsilon = by_filter if any(any(charge[1:]) for charge in others) else self._recompute([allotted], delta, None)
        self._require(epsilon <= cap * TOLERANCE, f"with its allotment {epsilon:.6g} may be spent, the cap is {cap}")
        returns = row["returns"] and by_filter <= cap * TOLERANCE
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
        self._sealed[self.number] = False
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

    def _ack(self, row: Row) -> None:
        self._require(self._sealed.get(row["reserve"]) is True, f"row {row['reserve']} is no sealed reserve")

    def _close(self, row: Row) -> None:
        study = self.studies.get(row["study"])
        is_open = not study.closed if study else row["study"] in self.infinite
        self._require(is_open, f"study {show(row['study'])} is not open")
        if study:
            study.closed = True
