"""Terms that a ledger's first row fixes for ever."""

from dataclasses import asdict, dataclass

from confide.client.privacy.account import LedgerRow
from confide.client.privacy.row_kinds import cap_fields
from confide.common.privacy.filter import Cap, choose_orders
from confide.common.privacy.plan import Plan, PrivacyPlan

_ORDERS_WITHOUT_PLAN = (6, 6)  # of a ledger whose first row is about a run without privacy


@dataclass(frozen=True)
class Terms:
    """Terms that a ledger's first row fixes; ``secret_commitment`` (`commitments`) exists if there is a secret."""

    dataset: str
    unit: str
    max_records_per_group: int
    simulated: bool = False
    secret_commitment: str | None = None


def first_row(terms: Terms, plan: Plan, cap: Cap) -> LedgerRow:
    """Return the first row: terms, cap, and the order at which each account counts from here on.

    The plan is the first, chosen before any result was seen. One order stands for both accounts where they are equal,
    as in the rows of older versions.
    """
    first, second = choose_orders(plan, cap) if isinstance(plan, PrivacyPlan) else _ORDERS_WITHOUT_PLAN
    orders = {"order": first} if first == second else {"order": first, "order_if_broken": second}
    named = {name: value for name, value in asdict(terms).items() if value is not None}
    return {**named, **orders, **cap_fields(cap)}
