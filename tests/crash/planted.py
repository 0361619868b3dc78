"""Bugs that the crash test must find: it is run with one of them to show that it can fail."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

from crash import planted_sums
from crash.asks import Ask

from confide.client.privacy import release as release_module
from confide.client.privacy import row_kinds
from confide.client.privacy.account import Account, LedgerRow, Reservation
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.outbox import Outbox
from confide.client.privacy.release import AnswerRequest
from confide.common.failpoints import failpoint
from confide.common.privacy.coins import Coins
from confide.common.privacy.filter import Cap

NAMES = ("refund", "seal-before-write", "reuse-coins", "send-orphan", "third-attempt", "forget-the-cap")


class Planted:
    """The product as it is, or with one bug."""

    def __init__(self, bug: str | None = None) -> None:
        self.bug = bug
        if bug in planted_sums.CHANGES:
            planted_sums.plant(bug)
        {
            "refund": _charge_at_the_seal,
            "third-attempt": _one_attempt_more,
            "forget-the-cap": _cap_of_the_opening,
            "send-orphan": _keep_orphans,
        }.get(str(bug), lambda: None)()

    def coins(self, ask: Ask) -> Coins:
        """Fresh ones, or those of the last attempt: a key that was stored."""
        if self.bug == "reuse-coins":
            return Coins(hashlib.sha256(repr(replace(ask, receipt="")).encode()).digest())
        return Coins.fresh()

    def release(
        self,
        request: AnswerRequest,
        ledger: Ledger,
        outbox: Outbox,
        agree: Callable[[], tuple[Cap, None]],
        make: Callable[[Reservation, None], bytes],
    ) -> bytes:
        """The product's, unless the bug is in the order of its lines."""
        wrong_order = self.bug == "seal-before-write"
        return (_sealing_first if wrong_order else release_module.release)(request, ledger, outbox, agree, make)


def _sealing_first(
    request: AnswerRequest,
    ledger: Ledger,
    outbox: Outbox,
    agree: Callable[[], tuple[Cap, None]],
    make: Callable[[Reservation, None], bytes],
) -> bytes:
    for earlier in ledger.account().answers.get(request.key, []):
        if earlier.sealed_sha256 and earlier.input_sha256 == request.input_sha256:
            return release_module._sealed(earlier, outbox)
    facts = {"input_sha256": request.input_sha256, "run_sha256": request.run_sha256, "coins": request.coins}
    cap, prepared = agree()
    reservation = ledger.reserve(request.key, (request.num_steps, request.num_releases), cap, facts)
    content = make(reservation, prepared)
    failpoint("before-seal")
    ledger.seal(reservation, hashlib.sha256(content).hexdigest(), len(content))
    failpoint("after-seal")
    outbox.put(reservation.answer_file, content)
    return content


def _charge_at_the_seal() -> None:
    """A RESERVE without a SEAL costs nothing: a crash gives budget back."""
    reserve, seal = row_kinds._KINDS["reserve"], row_kinds._KINDS["seal"]

    def no_charge(account: Account, row: LedgerRow, row_hash: str) -> None:
        reserve(account, {**row, "steps": 0, "releases": 0}, row_hash)
        account.reservations[row["number"]].price = (row["steps"], row["releases"])  # type: ignore[attr-defined]

    def charge(account: Account, row: LedgerRow, row_hash: str) -> None:
        seal(account, row, row_hash)
        reservation = account.reservations[row["reserve"]]
        study = account.studies[reservation.key.study]
        steps, releases = reservation.price  # type: ignore[attr-defined]
        study.reserved_steps, study.reserved_releases = study.reserved_steps + steps, study.reserved_releases + releases

    row_kinds._KINDS.update(reserve=no_charge, seal=charge)


def _one_attempt_more() -> None:
    from confide.client.privacy import rules

    rules._MAX_ATTEMPTS = 3


def _cap_of_the_opening() -> None:
    """A cap that is lowered in mid-study counts from the next study on only."""
    from confide.client.privacy import ledger, rules

    def forgetful(account: Account, key: rules.AnswerKey, charge: tuple[int, int], cap: Cap) -> int:
        return rules.may_reserve(account, key, charge, account.opened_under or cap)

    ledger.may_reserve = forgetful  # type: ignore[attr-defined]


def _keep_orphans() -> None:
    """After a start, an answer without a SEAL is taken for one that has it."""
    from confide.client.privacy import outbox

    outbox.FileOutbox.delete = lambda self, name: None  # type: ignore[method-assign]
