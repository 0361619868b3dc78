"""The spend over time, from the rows of the ledger."""

from dataclasses import dataclass

from confide.client.privacy.account import Account
from confide.client.privacy.policy import cap_of
from confide.client.privacy.row_kinds import add_row
from confide.client.site.installation import Institution

_MOST = 16  # moments: an accountant is asked for each


@dataclass(frozen=True)
class Moment:
    """The spend after one charge.

    Attributes:
        time: Unix seconds.
        study: the one that was charged.
        epsilon, if_broken: of all charges so far, by both accounts; infinite after training without privacy.
    """

    time: int
    study: str
    epsilon: float
    if_broken: float


def spend_over_time(site: Institution) -> list[Moment]:
    """Return the spend after each charge; of many, after the first, the last, and some between."""
    delta, rows = cap_of(site.config.policy).max_delta, site.ledger.rows()
    charges = [index for index, (row, _) in enumerate(rows) if row["kind"] in ("reserve", "infinite")]
    # Whole strides from the first: the moments stay as rows are added, and an accountant keeps what it has counted.
    chosen = {*charges[:: max(1, -(-len(charges) // (_MOST - 1)))], *charges[-1:]}
    account, moments = Account(), list[Moment]()
    for index, (row, row_hash) in enumerate(rows):
        add_row(account, row, row_hash)
        if index in chosen:
            both = account.epsilon_spent(delta), account.epsilon_spent_if_broken(delta)
            moments.append(Moment(row["time"], row["study"], *both))
    return moments
