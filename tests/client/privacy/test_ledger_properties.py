"""Whatever order of studies, rounds, crashes, policies and processes: no row passes either cap in force.

Spend is computed from the rows on the disk by code of its own (`support.accounts`), never through the product's.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.accounts import Replay
from support.ledgers import FACTS, LINEAGE, OTHER, PLAN, SHARED, make_ledger, read_rows

from confide.client.privacy.account import AnswerKey
from confide.client.privacy.ledger import Ledger
from confide.common.errors import BudgetError, PolicyError
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import NoPrivacy, Plan

# Few values, so that each composition is made once.
PLANS: list[Plan] = [
    replace(PLAN, num_steps=4, validation_releases=1),  # 1.1 by PLD
    OTHER,  # 2.0 by PLD
    replace(OTHER, noise_multiplier=40.0, num_steps=3, validation_releases=1),  # next to nothing
    replace(SHARED, num_steps=4),  # 1.1 by PLD, and 2.1 if the shared noise is broken
]
CAPS = [Cap(0.4, 1e-5), Cap(1.2, 1e-5), Cap(2.0, 1e-4), Cap(3.5, 1e-5), Cap(8.0, 1e-5)]
CAPS += [Cap(1.2, 1e-5, 2.2), Cap(1.2, 1e-5, 8.0), Cap(8.0, 1e-5, 9.0)]
studies = st.sampled_from(["one", "two", "three"])
ledgers = st.sampled_from([0, 1])


class Histories(RuleBasedStateMachine):
    """Two processes on one ledger.db, an administrator with an editor, and a server that asks for anything."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="confide-ledger-"))
        self.path, self.cap = self.folder / "ledger.db", CAPS[-1]
        self.rows: list[tuple[dict[str, Any], str]] = []
        self.replay = Replay()
        self.processes: list[Ledger] = [make_ledger(self.path), make_ledger(self.path)]

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def attempt(self, act: Callable[[], object]) -> Exception | None:
        """Do it; a refusal must leave no trace."""
        before = read_rows(self.path)
        try:
            act()
        except (PolicyError, BudgetError) as refusal:
            assert read_rows(self.path) == before
            return refusal
        finally:
            self.no_row_changes_and_none_passes_the_cap()
        return None

    @initialize(cap=st.sampled_from(CAPS), plan=st.sampled_from(PLANS))
    def first_study(self, cap: Cap, plan: Plan) -> None:
        self.cap = cap
        self.attempt(lambda: self.processes[0].open_study("one", plan, cap))

    @rule(process=ledgers, study=studies, plan=st.sampled_from(PLANS))
    def open_study(self, process: int, study: str, plan: Plan) -> None:
        self.attempt(lambda: self.processes[process].open_study(study, plan, self.cap))

    @rule(process=ledgers, study=studies, number=st.integers(1, 4), steps=st.integers(1, 2))
    def ask_update(self, process: int, study: str, number: int, steps: int) -> None:
        self.ask(self.processes[process], AnswerKey(study, LINEAGE, "update", number), (steps, 0))

    @rule(process=ledgers, study=studies, number=st.sampled_from([1, 2]))
    def try_again(self, process: int, study: str, number: int) -> None:
        """The same round, whose first attempts end in crashes: a third must be refused."""
        for _ in range(3):
            self.ask_update(process, study, number, 1)

    @rule(process=ledgers, study=studies, number=st.integers(1, 2))
    def ask_validation(self, process: int, study: str, number: int) -> None:
        self.ask(self.processes[process], AnswerKey(study, LINEAGE, "validation", number), (0, 1))

    def ask(self, ledger: Ledger, key: AnswerKey, charge: tuple[int, int]) -> None:
        """What `release` does: a sealed answer is not charged again."""
        if any(item.sealed_sha256 for item in ledger.account().answers.get(key, [])):
            return
        refusal = self.attempt(lambda: ledger.reserve(key, charge, self.cap, FACTS))
        if isinstance(refusal, BudgetError):
            assert self.passes(key.study, charge), f"refused without need: {refusal}"

    def passes(self, study: str, charge: tuple[int, int]) -> bool:
        """Whether a charge would pass the allotment, or by the filter alone the cap."""
        totals = [before + more for before, more in zip(self.replay.reserved[study], charge, strict=True)]
        if any(total > most for total, most in zip(totals, self.replay.allotted[study], strict=True)):
            return True
        at = replace_cap(self.replay, self.cap)
        first, second = at.by_filter(study, *charge)
        return first > self.cap.max_epsilon - 2e-4 or second > at.cap_if_broken - 2e-4

    @rule(process=ledgers, choice=st.randoms(use_true_random=False))
    def seal(self, process: int, choice: Any) -> None:
        account = self.processes[process].account()
        waiting = [item for item in account.reservations.values() if item.sealed_sha256 is None]
        if waiting:
            self.processes[process].seal(choice.choice(waiting), "3" * 64, 1)

    @rule(process=ledgers, choice=st.randoms(use_true_random=False))
    def release(self, process: int, choice: Any) -> None:
        """Any sealed answer, of a study that shares noise or not, released before or not."""
        items = self.processes[process].account().reservations.values()
        if sealed := [item for item in items if item.sealed_sha256]:
            share = choice.choice(sealed)
            refusal = self.attempt(lambda: self.processes[process].release(share, "4" * 64, 4, "5" * 64, 100, self.cap))
            assert refusal is None or not self.may_leave(share.number), f"refused without need: {refusal}"

    def may_leave(self, number: int) -> bool:
        """Whether nothing stands against a release, by the filter of each account."""
        study, others = self.replay.asked[number][0], {self.replay.asked[item][:4] for item in self.replay.released}
        plan = self.replay.plans[study]
        is_open = bool(plan and plan.get("sharing")) and not {study, ""} & self.replay.over
        return is_open and self.replay.asked[number][:4] not in others and not self.passes(study, (0, 0))

    @rule(process=ledgers)
    def acknowledge(self, process: int) -> None:
        for item in self.processes[process].account().reservations.values():
            if item.sealed_sha256:
                self.processes[process].acknowledge(item)
                break

    @rule(process=ledgers)
    def restart(self, process: int) -> None:
        self.processes[process] = make_ledger(self.path)

    @rule(cap=st.sampled_from(CAPS), study=studies)
    def edit_policy(self, cap: Cap, study: str) -> None:
        """And go on with a study."""
        self.cap = cap
        self.ask_update(0, study, 4, 1)

    @rule(process=ledgers, study=studies)
    def close(self, process: int, study: str) -> None:
        self.processes[process].close(study)

    @precondition(lambda self: len(self.rows) > 12)
    @rule(process=ledgers, without=st.booleans())
    def end(self, process: int, without: bool) -> None:
        """Training without privacy, or retirement."""
        ledger = self.processes[process]
        if without:
            self.attempt(lambda: ledger.open_study("plain", NoPrivacy(0.2, 3, 40), self.cap))
        else:
            ledger.retire()

    @invariant()
    def no_row_changes_and_none_passes_the_cap(self) -> None:
        rows = read_rows(self.path)
        assert rows[: len(self.rows)] == self.rows
        for row, row_hash in rows[len(self.rows) :]:
            self.replay.add(row, row_hash)
        self.rows = rows
        assert self.replay.problems == []

        self.both_processes_count_the_same()

    def both_processes_count_the_same(self) -> None:
        for ledger in self.processes:
            counted = {
                name: (charge.num_steps, charge.num_releases) for name, charge in ledger.account().reserved().items()
            }
            assert counted == {name: self.replay.reserved[name] for name, plan in self.replay.plans.items() if plan}


def replace_cap(before: Replay, cap: Cap) -> Replay:
    second = cap.max_epsilon if cap.max_epsilon_if_broken is None else cap.max_epsilon_if_broken
    return replace(before, cap=(cap.max_epsilon, cap.max_delta), cap_if_broken=second)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=40)
