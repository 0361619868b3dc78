"""What ledgers and their witnesses keep of secret.key and people.db, so that another one in their place is noticed.

A commitment is an HMAC under the secret, 256 random bits, of its own place: without the secret it tells nothing, nor
which ledgers are one institution's, nor whether anybody came between two rows.
"""

import hashlib
import hmac
from pathlib import Path

from confide.client.data.dataset_claims import People
from confide.client.privacy.account import Account
from confide.client.privacy.rollback import Witnesses
from confide.common.errors import LedgerError


def commit_to_secret(secret: bytes, dataset: str) -> str:
    """Of the first row of a dataset's ledger, or of the witnesses of one that an earlier version began."""
    return _keyed(secret, f"secret.key of {dataset}")


def commit_to_people(secret: bytes, previous: str, head: str) -> str:
    """Of the row that follows ``previous``: ``head`` (`People.head`) stands for all claims so far."""
    return _keyed(secret, f"people.db after {previous}: {head}")


def _keyed(secret: bytes, text: str) -> str:
    # No JSON, of which the names of units are made under the same secret.
    return hmac.new(secret, f"confide commitment to {text}".encode(), hashlib.sha256).hexdigest()


def require_secret(path: Path, secret: bytes, accounts: list[Account], witnesses: Witnesses) -> None:
    """Compare the secret with what the ledgers of a state folder, and their witnesses, keep of theirs.

    The witnesses of a ledger that an earlier version began are told, if they do not know yet; ``accounts`` begins with
    that ledger's.

    Raises:
        LedgerError: it is another one.
    """
    begun = [account.first for account in accounts if "secret_commitment" in account.first]
    kept = [("the ledger's first row", first["dataset"], first["secret_commitment"]) for first in begun]
    for place, dataset, commitment in [*kept, *witnesses.commitments()]:
        if commitment != commit_to_secret(secret, dataset):
            raise LedgerError(
                f"{path}: another secret than {place} knows of dataset {dataset!r}: units would move between train and "
                "validation, and nobody would be known again; put back the one from the backup, nothing replaces it"
            )
    first = accounts[0].first
    if first and "secret_commitment" not in first:
        witnesses.commit(commit_to_secret(secret, first["dataset"]))


def require_people(path: Path, people: People, secret: bytes, accounts: list[Account]) -> None:
    """Compare the claims with what the rows saw of them; there may be more now, for a claim comes before its row.

    All datasets of a state folder have their claims in one file, so the rows of all are asked.

    Raises:
        LedgerError: the file is older than a row, or was changed.
    """
    heads = people.heads()[::-1]
    for account in accounts:
        previous, commitment = account.people or ("", "")
        if commitment and all(commit_to_people(secret, previous, head) != commitment for head in heads):
            raise LedgerError(
                f"{path}: the ledger of {account.first['dataset']!r} saw people who are not there, or are another "
                "dataset's now: the file is gone, an old copy was put back, or it was changed; put back the newest "
                "one; without it nobody knows who is counted where, and these people must not take part"
            )
