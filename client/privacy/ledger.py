"""The institution's durable account of the spend on the people of a dataset, over all studies, for ever."""

from collections.abc import Callable
from dataclasses import asdict

from confide.client.privacy.account import Account, AnswerKey, LedgerRow, Reservation
from confide.client.privacy.chain import Chain, Witness
from confide.client.privacy.database import Database
from confide.client.privacy.row_kinds import cap_fields
from confide.client.privacy.rules import may_open, may_release, may_reserve, require_unit, require_unreleased
from confide.client.privacy.terms import Terms, first_row
from confide.common.errors import PolicyError
from confide.common.privacy.filter import ACCOUNTANT, Cap, Charge, fits_filter
from confide.common.privacy.plan import Plan, PrivacyPlan


class Ledger:
    """The rows of one dataset, and the only way to add one.

    Guarantee: when `reserve` returns, its row is on the disk, and the spend with it is within the given cap. Other
    processes, restarts and edits of the policy cannot break this. No row changes, and no charge is refunded. When
    `release` returns, no other share of its round leaves this file's datasets, ever.

    Args:
        database: the file; the ledgers of simulated institutions share one in memory.
        terms: of the dataset.
        witness: is given every new row and its hash after the commit; keeps the head elsewhere.
        people: commits to all claims so far, given the hash of the row before; None if no other dataset can claim.
    """

    def __init__(
        self, database: Database, terms: Terms, witness: Witness, people: Callable[[str], str] | None = None
    ) -> None:
        self.terms, self._people = terms, people
        self._chain = Chain(database, terms.dataset, witness)

    def account(self) -> Account:
        """Return the sum of all rows so far; `LedgerError` if their chain is broken."""
        return self._chain.read_account()

    def accounts(self) -> list[Account]:
        """Return this account, then those of all other datasets in the same file."""
        with self._chain.transaction() as account:
            return [account, *self._chain.others()]

    def rows(self) -> list[tuple[LedgerRow, str]]:
        """Return every row with its hash."""
        return self._chain.rows()

    def knows(self, row_hash: str) -> bool:
        """Return whether this dataset, or another in the same file, has a row with this hash."""
        return self._chain.knows(row_hash)

    def approve(self, study: str, run_sha256: str, plan: Plan, cap: Cap) -> None:
        """Note that a person agreed to a locked run."""
        with self._chain.transaction() as account:
            self._begin(account, plan, cap)
            if (study, run_sha256) not in account.approved:
                self._chain.append("approve", {"study": study, "run_sha256": run_sha256})

    def open_study(self, name: str, plan: Plan, cap: Cap) -> None:
        """OPEN: pin the plan and allot its steps, all or none; the same plan again changes nothing.

        Raises:
            PolicyError, BudgetError: see `rules.may_open`.
        """
        with self._chain.transaction() as account:
            self._begin(account, plan, cap)
            if not may_open(account, name, plan, cap):
                return
            if not isinstance(plan, PrivacyPlan):
                self._chain.append("infinite", {"study": name})
                return
            charge = Charge(plan, plan.num_steps, plan.validation_releases)
            returns = fits_filter([*account.allotted(), charge], cap, account.orders)
            allotted = {"study": name, "steps": charge.num_steps, "releases": charge.num_releases, "returns": returns}
            allotted["accountant"] = ACCOUNTANT
            pinned = {"plan": plan.as_fields(), **cap_fields(cap), **self._seen(account)}
            self._chain.append("open", {**allotted, **pinned})

    def reserve(self, key: AnswerKey, charge: tuple[int, int], cap: Cap, facts: dict[str, str]) -> Reservation:
        """RESERVE: charge ``(steps, releases)`` for one answer, before anything of it is computed.

        Raises:
            PolicyError, BudgetError: see `rules.may_reserve`.
        """
        with self._chain.transaction() as account:
            self._note_cap(account, cap)
            attempt = may_reserve(account, key, charge, cap)
            row = {**asdict(key), **facts, **cap_fields(cap), "attempt": attempt}
            row |= {"steps": charge[0], "releases": charge[1]}
            return account.reservations[self._chain.append("reserve", {**row, **self._seen(account)})]

    def seal(self, reservation: Reservation, sha256: str, size: int) -> None:
        """SEAL: fix this file, and no other, as the answer. From here on it is sent again at no charge."""
        with self._chain.transaction():
            self._chain.append("seal", {"reserve": reservation.number, "sha256": sha256, "bytes": size})

    def release(
        self, reservation: Reservation, statement_sha256: str, members: int, sha256: str, size: int, cap: Cap
    ) -> None:
        """RELEASE: this masked share leaves, under this statement, and no other share of its round ever does.

        Raises:
            PolicyError, BudgetError: see `rules.may_release` and `rules.require_unreleased`.
        """
        with self._chain.transaction() as account:
            # A simulated ledger stands for an institution with a key of its own, whatever else is in its file.
            others = [] if self.terms.simulated else self._chain.others()
            may_release(account, reservation.key, cap)
            require_unreleased(account, reservation.number, members, others)
            self._note_cap(account, cap)
            left = {"statement_sha256": statement_sha256, "members": members, "sha256": sha256, "bytes": size}
            self._chain.append("release", {"reserve": reservation.number, **left})

    def acknowledge(self, reservation: Reservation) -> None:
        """ACK: note that the server has the answer."""
        with self._chain.transaction() as account:
            if not account.reservations[reservation.number].acknowledged:
                self._chain.append("ack", {"reserve": reservation.number})

    def close(self, study: str) -> None:
        """CLOSE: free the steps that were never reserved, for other studies."""
        with self._chain.transaction() as account:
            if study in account.studies and not account.studies[study].closed:
                self._chain.append("close", {"study": study})

    def retire(self) -> None:
        """Open and reserve nothing any more, ever. `PolicyError` if the ledger has no row yet."""
        with self._chain.transaction() as account:
            if account.number == 0:
                raise PolicyError(f"dataset {self.terms.dataset!r} has no ledger row yet; there is nothing to retire")
            if not account.retired:
                self._chain.append("retire", {})

    def _begin(self, account: Account, plan: Plan, cap: Cap) -> None:
        """Write the first row if there is none: it fixes the unit and the filter's order. Then note the cap."""
        if account.number == 0:
            self._chain.append("dataset", first_row(self.terms, plan, cap))
        require_unit(account, self.terms.unit, self.terms.max_records_per_group)
        self._note_cap(account, cap)

    def _seen(self, account: Account) -> LedgerRow:
        """Return the next row's commitment to the claims."""
        return {"people": self._people(account.head)} if self._people else {}

    def _note_cap(self, account: Account, cap: Cap) -> None:
        if account.number and account.cap != cap:
            self._chain.append("policy", cap_fields(cap))
