"""The budget before and after a run, for whoever decides about it."""

import math
from dataclasses import dataclass
from typing import Literal

from confide.client.answers.agreement import plan_of
from confide.client.privacy.policy import cap_of
from confide.client.site.installation import Institution
from confide.common.config.run import RunConfig
from confide.common.privacy.filter import Cap, Charge, accounts, choose_orders, fits_filter, spent
from confide.common.privacy.plan import PrivacyPlan


@dataclass(frozen=True)
class Budget:
    """One account of an institution, in epsilon at the policy's delta. What is spent is rounded up, what is left down.

    Attributes:
        before: spent, or set aside for studies that are open.
        after: the same with the run.
        cap: the most that is allowed for ever.
    """

    before: float
    after: float
    cap: float

    @property
    def left(self) -> float:
        """The rest after the run."""
        return max(0.0, math.floor((self.cap - self.after) * 1e4) / 1e4)


@dataclass(frozen=True)
class Budgets:
    """Both accounts of an institution with a run.

    Attributes:
        first: the account that counts against `max_epsilon`.
        second: the account of broken shared noise; None where the run shares none.
        is_only_study: True if the run's study blocks every other one, as its whole plan fits the cap as the only one.
    """

    first: Budget
    second: Budget | None
    is_only_study: bool


def budgets(run: RunConfig, site: Institution) -> Budgets | None:
    """Return the budget before and after a locked run; None for a run without privacy.

    A study that is open is counted as a whole before and after.
    """
    account, plan, cap = site.ledger.account(), plan_of(run, site), cap_of(site.config.policy)
    if not isinstance(plan, PrivacyPlan) or account.infinite:
        return None
    orders = account.orders if account.number else choose_orders(plan, cap)
    before = account.allotted()
    is_open = run.study.name in account.studies
    after = before if is_open else [*before, Charge(plan, plan.num_steps, plan.validation_releases)]
    counted = [
        Budget(spent(own[: len(before)], of.max_delta, order), spent(own, of.max_delta, order), of.max_epsilon)
        for own, of, order in accounts(after, cap, orders)
    ]
    only = not fits_filter(after, cap, orders)
    return Budgets(counted[0], counted[1] if plan.sharing is not None else None, only)


def budget_now(site: Institution, which: Literal["first", "second"] = "first") -> Budget:
    """Return an account as it is: ``before`` is what is reserved so far, ``after`` all that is set aside."""
    account, cap = site.ledger.account(), cap_of(site.config.policy)
    of: Cap = cap if which == "first" else cap.if_broken
    if not account.number:
        return Budget(0.0, 0.0, of.max_epsilon)
    count = account.epsilon_spent if which == "first" else account.epsilon_spent_if_broken
    reserved = count(of.max_delta)
    if account.infinite:
        return Budget(reserved, reserved, of.max_epsilon)
    index = 0 if which == "first" else 1
    own, _, order = list(accounts(account.allotted(), cap, account.orders))[index]
    return Budget(reserved, max(reserved, spent(own, of.max_delta, order)), of.max_epsilon)
