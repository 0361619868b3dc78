"""Commitments of ledgers and their witnesses to secret.key and people.db, so that a replaced file is noticed.

A commitment is an HMAC of its own place under the secret, 256 random bits. Without the secret it tells nothing: neither
which ledgers belong to one institution, nor whether people were added between two rows.
"""

import hashlib
import hmac
from pathlib import Path

from confide.client.data.dataset_claims import People
from confide.client.privacy.account import Account
from confide.client.privacy.rollback import Witnesses
from confide.common.errors import LedgerError


def commit_to_secret(secret: bytes, dataset: str) -> str:
    """Return the commitment for the first row of a dataset's ledger, or for the witnesses of an older ledger."""
    return _keyed(secret, f"secret.key of {dataset}")


def commit_to_people(secret: bytes, previous: str, head: str) -> str:
    """Return the commitment for the row after ``previous``; ``head`` (`People.head`) stands for all claims so far."""
    return _keyed(secret, f"people.db after {previous}: {head}")


def _keyed(secret: bytes, text: str) -> str:
    # The text is never JSON: the names of units are HMACs of JSON under the same secret.
    return hmac.new(secret, f"confide commitment to {text}".encode(), hashlib.sha256).hexdigest()


def require_secret(path: Path, secret: bytes, accounts: list[Account], witnesses: Witnesses) -> None:
    """Check the secret against the commitments in the ledgers of a state folder and in their witnesses.

    ``accounts`` begins with the opened ledger's. If an earlier version began that ledger, its witnesses are given the
    commitment, unless they have it already.

    Raises:
        LedgerError: the secret is another one.
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
    """Check the claims against the commitments in the rows. More claims are fine: a claim comes before its row.

    All datasets of a state folder have their claims in one file, so the rows of all are compared.

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
