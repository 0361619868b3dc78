"""RESERVE -> make -> outbox -> SEAL -> send -> ACK, as one function. Nothing else touches the ledger or the outbox."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from confide.client.privacy.account import AnswerKey, Reservation
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.outbox import Outbox
from confide.common.errors import LedgerError
from confide.common.failpoints import failpoint
from confide.common.privacy.filter import Cap

Prepared = TypeVar("Prepared")

_KEPT_ROUNDS = 3  # of acknowledged answers: a server whose last checkpoint is damaged asks for a round again


def _nothing(reservation: Reservation) -> None:
    """Keep nothing: all of the answer leaves."""


@dataclass(frozen=True)
class AnswerRequest:
    """A request for one answer.

    Attributes:
        key: study, lineage, what, round.
        num_steps, num_releases: the price.
        input_sha256, run_sha256: hashes of the adapter and of the locked run that it answers.
        coins: "os" for the operating system's randomness; a test's own coins are named in the ledger.
    """

    key: AnswerKey
    num_steps: int
    num_releases: int
    input_sha256: str
    run_sha256: str
    coins: str = "os"


def release(
    request: AnswerRequest,
    ledger: Ledger,
    outbox: Outbox,
    agree: Callable[[], tuple[Cap, Prepared]],
    make: Callable[[Reservation, Prepared], bytes],
    keep: Callable[[Reservation], None] = _nothing,
) -> bytes:
    """Return the answer to a request, ready to be sent.

    Guarantee: no byte that ``make`` computes leaves before its charge is on the disk. A sealed answer is sent again as
    it is, without another charge and without ``make``. An unsealed answer is never sent, and the next attempt draws
    everything anew under its own charge. A crash between any two lines keeps all of this.

    Args:
        request: the answer that is asked for, and its price.
        ledger: of the dataset that the answer is about.
        outbox: beside that ledger.
        agree: the institution's policy: gives the cap in force and what it has prepared, or raises to
            refuse. Nothing is charged before it.
        make: computes the answer of what is prepared, with fresh coins; is called after the charge.
        keep: stores what stays here (the share of a sum), while no other process recovers.

    Raises:
        PolicyError, BudgetError: refused; nothing was charged or computed.
        LedgerError: the outbox does not hold what was sealed.
    """
    for earlier in ledger.account().answers.get(request.key, []):
        asked = (earlier.input_sha256, earlier.run_sha256)
        if earlier.sealed_sha256 and asked == (request.input_sha256, request.run_sha256):
            return _sealed(earlier, outbox)
    cap, prepared = agree()
    failpoint("before-reserve")
    facts = {"input_sha256": request.input_sha256, "run_sha256": request.run_sha256, "coins": request.coins}
    charge = (request.num_steps, request.num_releases)
    reservation = ledger.reserve(request.key, charge, cap, facts)
    failpoint("after-reserve")
    content = make(reservation, prepared)
    failpoint("after-train")
    with outbox.busy():
        keep(reservation)
        outbox.put(reservation.answer_file, content)
        failpoint("before-seal")
        ledger.seal(reservation, hashlib.sha256(content).hexdigest(), len(content))
    failpoint("after-seal")
    return content


def acknowledge(head: str, ledger: Ledger, outbox: Outbox, *, is_sum: bool = False) -> None:
    """ACK: the server has shown that it holds the answer which names ``head`` (the hash of its RESERVE row).

    With ``is_sum`` that answer is a masked share, which leaves after its RELEASE row only.

    Raises:
        LedgerError: the ledger has no such row, though this institution's own key signed it: an old copy was put back.
    """
    account = ledger.account()
    reservation = next((item for item in account.reservations.values() if item.hash == head), None)
    if reservation is None and ledger.knows(head):  # of another dataset that the same key signs for
        return
    if reservation is None:
        raise LedgerError(
            "the server holds an update that this ledger does not know: ledger.db is older than what was sent; put "
            "back the newest one"
        )
    if reservation.sealed_sha256 is None or (is_sum and reservation.released is None):
        row = "RELEASE" if is_sum else "SEAL"
        raise LedgerError(
            f"the server holds an update that has no {row} in this ledger, and without one nothing is ever sent: "
            "ledger.db is older than what was sent; put back the newest one"
        )
    if not reservation.acknowledged:
        failpoint("before-acknowledge")
        ledger.acknowledge(reservation)
        failpoint("after-acknowledge")
    last = reservation.key.round - _KEPT_ROUNDS
    sealed = [item for item in account.reservations.values() if item.sealed_sha256]  # others may be on their way
    of_run = [item for item in sealed if item.key.lineage == reservation.key.lineage and item.key.round <= last]
    old = {name for item in of_run for name in (item.answer_file, item.sum_file)}
    for name in old & set(outbox.names()):
        outbox.delete(name)


def recover(ledger: Ledger, outbox: Outbox) -> None:
    """Delete, after a start, every answer without a SEAL, for it must never be sent.

    Raises:
        LedgerError: the outbox holds an answer that the ledger does not know: an old ledger was put back.
    """
    with outbox.idle():
        account = ledger.account()
        known = {item.answer_file: item for item in account.reservations.values()}
        known |= {item.sum_file: item for item in account.reservations.values() if item.released}
        for name in outbox.names():
            if name not in known:
                raise LedgerError(
                    f"the outbox holds {name}, which the ledger does not know: ledger.db is older than the outbox; "
                    "put back the newest one"
                )
            if known[name].sealed_sha256 is None:
                outbox.delete(name)


def _sealed(reservation: Reservation, outbox: Outbox) -> bytes:
    content = outbox.get(reservation.answer_file)
    if content is None or hashlib.sha256(content).hexdigest() != reservation.sealed_sha256:
        raise LedgerError(f"round {reservation.key.round}: its sealed answer is gone from the outbox, or was changed")
    return content
