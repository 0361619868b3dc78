"""The shares of secure sums that are held here between the two exchanges, each with its secret mask key."""

import hashlib

from confide.client.privacy.account import Account, AnswerKey, Reservation
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.outbox import Outbox
from confide.common.errors import LedgerError, PolicyError
from confide.common.failpoints import failpoint

_DIGEST = 32  # bytes of SHA-256 at the end of a share's file


def hold_share(reservation: Reservation, content: bytes, shares: Outbox) -> None:
    """Keep a share and its secret mask key, which never leave as they are."""
    shares.put(reservation.share_file, content + hashlib.sha256(content).digest())
    failpoint("share-written")


def require_held(account: Account, key: AnswerKey, asked: tuple[str, str], shares: Outbox) -> None:
    """Check that an envelope which would be sent again still has its share: `PolicyError`, for else its sum is void."""
    for item in account.answers.get(key, []):
        is_it = item.sealed_sha256 and (item.input_sha256, item.run_sha256) == asked
        if is_it and item.released is None and shares.get(item.share_file) is None:
            raise PolicyError(f"round {key.round}: its share is not held any more, so it takes no part in a sum")


def held_share(reservation: Reservation, shares: Outbox) -> bytes:
    """Return a share and its mask key.

    Raises:
        PolicyError: it is not held any more.
        LedgerError: it was released, and is gone or was changed.
    """
    content = shares.get(reservation.share_file)
    if content is None and reservation.released is None:
        raise PolicyError(f"round {reservation.key.round}: its share is not held any more")
    if content is None or hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
        raise LedgerError(f"round {reservation.key.round}: its share is gone, or was changed")
    return content[:-_DIGEST]


def recover_shares(ledger: Ledger, outbox: Outbox, shares: Outbox) -> None:
    """Delete, after a start, every share that must not leave any more; `LedgerError` as in `forget_shares`."""
    with outbox.idle(), shares.idle():
        forget_shares(ledger, outbox, shares)


def end_shares(lineage: str, ledger: Ledger, outbox: Outbox, shares: Outbox) -> None:
    """Delete every share of a run that is over."""
    with outbox.idle(), shares.idle():
        ended = {item.share_file for item in ledger.account().reservations.values() if item.key.lineage == lineage}
        for name in ended & set(shares.names()):
            shares.delete(name)


def forget_shares(ledger: Ledger, outbox: Outbox, shares: Outbox) -> None:
    """Delete every share that must not leave any more: unsealed, sent, of a round that is passed, of a closed study.

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
        is_over = account.retired or account.studies[item.key.study].closed
        if item.sealed_sha256 is None or is_sent or is_over or (passed and item.released is None):
            shares.delete(name)
