"""Checks -> RELEASE -> outbox -> forget the share -> send: the way of a share into a secure sum, as one function."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from confide.client.privacy.account import AnswerKey, Reservation
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.outbox import Outbox
from confide.client.privacy.sum_checks import sealed_share
from confide.common.errors import LedgerError, PolicyError
from confide.common.failpoints import failpoint
from confide.common.privacy.filter import Cap

_DIGEST = 32  # bytes of SHA-256 at the end of a share's file


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


def hold_share(reservation: Reservation, content: bytes, shares: Outbox) -> None:
    """Keep a share and its secret mask key, which never leave as they are."""
    shares.put(reservation.share_file, content + hashlib.sha256(content).digest())
    failpoint("share-written")


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
        content, numbers = mask(reservation, _held(reservation, shares))
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


def recover_shares(ledger: Ledger, outbox: Outbox, shares: Outbox) -> None:
    """Delete, after a start, every share that must not leave any more; `LedgerError` as in `forget_shares`."""
    with outbox.idle():
        forget_shares(ledger, outbox, shares)


def end_shares(lineage: str, ledger: Ledger, outbox: Outbox, shares: Outbox) -> None:
    """Delete every share of a run that is over."""
    with outbox.idle():
        ended = {item.share_file for item in ledger.account().reservations.values() if item.key.lineage == lineage}
        for name in ended & set(shares.names()):
            shares.delete(name)


def forget_shares(ledger: Ledger, outbox: Outbox, shares: Outbox) -> None:
    """Delete every share that must not leave any more: unsealed, sent, or of a round that is passed.

    Raises:
        LedgerError: a share or a masked share is here that the ledger does not know: an old ledger was put back.
    """
    account = ledger.account()
    held = {item.share_file: item for item in account.reservations.values()}
    released = [item.key for item in account.reservations.values() if item.released]
    for name in shares.names():
        if name not in held:
            raise LedgerError(
                f"a share {name} is here, which the ledger does not know: ledger.db is older than it; put back the "
                "newest one"
            )
        item = held[name]
        passed = any(key.lineage == item.key.lineage and key.round >= item.key.round for key in released)
        is_sent = item.released is not None and outbox.get(item.sum_file) is not None
        if item.sealed_sha256 is None or is_sent or (passed and item.released is None):
            shares.delete(name)


def _held(reservation: Reservation, shares: Outbox) -> bytes:
    content = shares.get(reservation.share_file)
    if content is None and reservation.released is None:
        raise PolicyError(f"round {reservation.key.round}: its share is not held any more")
    if content is None or hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
        raise LedgerError(f"round {reservation.key.round}: its share is gone, or was changed")
    return content[:-_DIGEST]
