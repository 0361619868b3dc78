"""The epsilon of several studies on the same people: a filter that holds for plans chosen one after the other.

A server chooses the next study after it has seen the results of the last. Composed PLD does not hold for that, but a
Renyi filter does: at one order, fixed before anything is spent, the sum of Renyi divergences may never pass the budget
(Feldman and Zrnic, arXiv 2008.11193, theorem 4.5).

The first study is an exception that costs nothing: its plan was chosen before any result was seen, so its own PLD
holds for it. If its whole allotment does not fit the filter, no other study is ever admitted beside or after it. So no
later choice can depend on its results.

Where institutions share noise, there are two accounts of the same charges. The first values a charge by its plan, the
second by `PrivacyPlan.if_broken`, and each has its own cap and its own order. If some studies are broken and others
not, the second account bounds the mixture: no charge has less noise in the first account than in the second.
"""

import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from dp_accounting import NeighboringRelation
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from confide.common.privacy.accounting import epsilon, event, round_up
from confide.common.privacy.plan import PrivacyPlan

ACCOUNTANT = f"dp-accounting {importlib.metadata.version('dp-accounting')}"  # the accountant that a ledger's rows name


@dataclass(frozen=True, slots=True)
class Cap:
    """An institution's limit for ever: at most ``max_epsilon`` at ``max_delta``.

    ``max_epsilon_if_broken`` is the second account's limit at the same delta; None is the same as ``max_epsilon``.
    """

    max_epsilon: float
    max_delta: float
    max_epsilon_if_broken: float | None = None

    @property
    def if_broken(self) -> "Cap":
        """The second account's cap."""
        second = self.max_epsilon_if_broken
        return Cap(self.max_epsilon if second is None else second, self.max_delta)


@dataclass(frozen=True, slots=True)
class Charge:
    """The charge of one study: numbers of steps and of validation releases of its plan."""

    plan: PrivacyPlan
    num_steps: int
    num_releases: int = 0


Orders = tuple[int, int]  # at which the first and the second account count; a ledger's first row fixes both


def accounts(charges: Sequence[Charge], cap: Cap, orders: Orders) -> Iterator[tuple[list[Charge], Cap, int]]:
    """Yield, for the first and the second account, the charges as it values them, its cap and its order."""
    yield list(charges), cap, orders[0]
    yield if_broken(charges), cap.if_broken, orders[1]


def if_broken(charges: Sequence[Charge]) -> list[Charge]:
    """Return the charges as the second account values them: by the noise of one share alone."""
    return [replace(charge, plan=charge.plan.if_broken) for charge in charges]


def choose_orders(plan: PrivacyPlan, cap: Cap) -> Orders:
    """Return the order of each account, by `choose_order` on its own plan and cap."""
    return choose_order(plan, cap), choose_order(plan.if_broken, cap.if_broken)


def choose_order(plan: PrivacyPlan, cap: Cap) -> int:
    """Return the Renyi order at which an account counts: there, most studies like the first fit under the cap.

    The first plan was chosen before any result was seen, so the order does not depend on any result.

    >>> choose_order(PrivacyPlan("record", 0.1, 40, 2000, 1.0, "automatic", 1.274, 1e-5), Cap(8.0, 1e-5))
    4
    """
    return _choose_order(replace(plan, declared_units=1), cap)


@lru_cache(maxsize=16)
def _choose_order(plan: PrivacyPlan, cap: Cap) -> int:
    best, copies, total = 2, 1, 0.0
    while total <= cap.max_epsilon and copies <= 1024:
        accountant = RdpAccountant(range(2, 257), NeighboringRelation.ADD_OR_REMOVE_ONE)
        accountant.compose(event(plan, plan.num_steps, plan.validation_releases), copies)
        total, order = accountant.get_epsilon_and_optimal_order(cap.max_delta)
        best = int(order) if total <= cap.max_epsilon or copies == 1 else best
        copies *= 2
    return best


def fits_filter(charges: Sequence[Charge], cap: Cap, orders: Orders) -> bool:
    """Return whether the charges together stay within both caps, however and whenever they were chosen."""
    counted = (
        (filter_epsilon(own, of.max_delta, at), of.max_epsilon) for own, of, at in accounts(charges, cap, orders)
    )
    return all(epsilon_of_all <= most for epsilon_of_all, most in counted)


def spent(charges: Sequence[Charge], delta: float, order: int) -> float:
    """Return epsilon of all charges at ``delta``, rounded up: by PLD for one study, by the filter for several."""
    if len(_relevant(charges)) <= 1:
        return composed_epsilon(charges, delta)
    return filter_epsilon(charges, delta, order)


def filter_epsilon(charges: Sequence[Charge], delta: float, order: int) -> float:
    """Return epsilon at ``delta`` of the summed Renyi divergences at ``order``, rounded up.

    >>> study = Charge(PrivacyPlan("record", 0.1, 40, 2000, 1.0, "automatic", 1.274, 1e-5), 40)
    >>> filter_epsilon([study], 1e-5, 5)
    3.4558
    """
    accountant = RdpAccountant([order], NeighboringRelation.ADD_OR_REMOVE_ONE)
    for charge in _relevant(charges):
        accountant.compose(event(charge.plan, charge.num_steps, charge.num_releases))
    return round_up(accountant.get_epsilon(delta)) if _relevant(charges) else 0.0


def composed_epsilon(charges: Sequence[Charge], delta: float) -> float:
    """Return epsilon at ``delta`` of all charges by PLD, rounded up.

    For several studies it holds only if no plan was chosen after results of another were seen. There it is reported,
    but never decides.
    """
    relevant = _relevant(charges)
    if len(relevant) == 1:
        plan = replace(relevant[0].plan, target_delta=delta)
        return epsilon(plan, relevant[0].num_steps, relevant[0].num_releases)
    return _composed(tuple(relevant), delta) if relevant else 0.0


@lru_cache(maxsize=16)
def _composed(charges: tuple[Charge, ...], delta: float) -> float:
    accountant = PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=1e-3)
    for charge in charges:
        accountant.compose(event(charge.plan, charge.num_steps, charge.num_releases))
    return round_up(accountant.get_epsilon(delta))


def _relevant(charges: Sequence[Charge]) -> list[Charge]:
    return [charge for charge in charges if charge.num_steps or charge.num_releases]
