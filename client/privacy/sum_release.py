"""Checks -> RELEASE -> outbox -> forget the share -> send: the way of a share into a secure sum, as one function."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from confide.client.privacy.account import AnswerKey, Reservation
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.outbox import Outbox
from confide.client.privacy.sum_checks import sealed_share
from confide.client.privacy.sum_shares import forget_shares, held_share
from confide.common.errors import LedgerError, PolicyError
from confide.common.failpoints import failpoint
from confide.common.privacy.filter import Cap


@dataclass(frozen=True)
class SumRequest:
    """A request for one masked share.

    Attributes:
        key: study, lineage, "update", round.
        input_sha256, run_sha256: hashes of the adapter and of the locked run.
        statement_sha256: names the sum.
        num_members: of the statement.
    """

    key: AnswerKey
    input_sha256: str
    run_sha256: str
    statement_sha256: str
    num_members: int


def release_sum(
    request: SumRequest,
    ledger: Ledger,
    outbox: Outbox,
    shares: Outbox,
    agree: Callable[[Reservation], Cap],
    mask: Callable[[Reservation, bytes], tuple[bytes, bytes]],
) -> bytes:
    """Return the masked share that a statement asks for, ready to be sent.

    Guarantee: a share leaves masked, under one statement, and one share of a round at all, whatever process dies when.
    No byte of it leaves before its RELEASE is on the disk. What was released is sent again as it is, and free.

    Args:
        request: the sum that is asked for.
        ledger: of the dataset that the share is about.
        outbox: beside that ledger.
        shares: the shares that are held.
        agree: checks policy and statement for a reservation: gives the cap in force, or raises to refuse.
        mask: makes of a reservation and its share the answer and the masked numbers. Equal input gives equal bytes.

    Raises:
        PolicyError, BudgetError: refused; nothing left.
        LedgerError: ledger and files do not agree.
    """
    reservation = sealed_share(ledger.account(), request.key, (request.input_sha256, request.run_sha256))
    if reservation.released not in (None, request.statement_sha256):
        raise PolicyError(f"round {request.key.round}: its share has left under another statement")
    sent = outbox.get(reservation.sum_file) if reservation.released else None
    if sent is not None:
        return sent
    cap = None if reservation.released else agree(reservation)
    with outbox.busy():
        content, numbers = mask(reservation, held_share(reservation, shares))
        digest = hashlib.sha256(numbers).hexdigest()
        if cap is not None:
            failpoint("before-release")
            ledger.release(reservation, request.statement_sha256, request.num_members, digest, len(numbers), cap)
            failpoint("after-release")
        elif digest != reservation.released_sha256:
            raise LedgerError(f"round {request.key.round}: its share is another than the one that was released")
        outbox.put(reservation.sum_file, content)
        failpoint("sum-written")
        forget_shares(ledger, outbox, shares)
        failpoint("share-forgotten")
    return content
