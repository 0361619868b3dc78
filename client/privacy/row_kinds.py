"""The effect of each kind of row on an account, and the hash of a row.

dataset    the first row: id, unit, orders of the filter, cap     policy   another cap in force
approve    a person agreed to a locked run                        open     a study's plan and allotment
infinite   training without privacy                               reserve  charged, before anything is computed
seal       this file is the answer                                ack      the server has it
release    this share leaves, under this statement
close      steps that were never reserved are free again          retire   nothing more, ever
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict

from confide.client.privacy.account import Account, AnswerKey, LedgerRow, Reservation, StudyAllotment
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.secure.sharing import Sharing


def add_row(account: Account, row: LedgerRow, row_hash: str) -> None:
    """Take in the next row, whose place in the chain the caller has checked; `KeyError` for a kind that is not ours."""
    _KINDS[row["kind"]](account, row, row_hash)
    if "people" in row:
        account.people = (row["previous"], row["people"])
    account.number, account.head = row["number"], row_hash


def canonical(row: LedgerRow) -> str:
    """Return a row as the text that is hashed."""
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def hash_row(row: LedgerRow) -> str:
    """Return the hex SHA-256 of a row."""
    return hashlib.sha256(canonical(row).encode()).hexdigest()


def cap_fields(cap: Cap) -> LedgerRow:
    """Return a cap as fields of a row, without a second bound that is not set: older rows have none."""
    return {name: value for name, value in asdict(cap).items() if value is not None}


def _cap(row: LedgerRow) -> Cap:
    return Cap(row["max_epsilon"], row["max_delta"], row.get("max_epsilon_if_broken"))


def _plan(fields: LedgerRow) -> PrivacyPlan:
    sharing = fields.get("sharing")
    return PrivacyPlan(**{**fields, "sharing": None if sharing is None else Sharing(**sharing)})


def _dataset(account: Account, row: LedgerRow, row_hash: str) -> None:
    account.first = row
    _policy(account, row, row_hash)


def _policy(account: Account, row: LedgerRow, row_hash: str) -> None:
    account.cap = _cap(row)


def _approve(account: Account, row: LedgerRow, row_hash: str) -> None:
    account.approved.add((row["study"], row["run_sha256"]))


def _open(account: Account, row: LedgerRow, row_hash: str) -> None:
    account.studies[row["study"]] = StudyAllotment(_plan(row["plan"]), row["steps"], row["releases"], row["returns"])
    account.opened_under = _cap(row)


def _infinite(account: Account, row: LedgerRow, row_hash: str) -> None:
    account.studies[row["study"]] = StudyAllotment(None)


def _reserve(account: Account, row: LedgerRow, row_hash: str) -> None:
    study = account.studies[row["study"]]
    study.reserved_steps += row["steps"]
    study.reserved_releases += row["releases"]
    key = AnswerKey(row["study"], row["lineage"], row["what"], row["round"])
    reservation = Reservation(row["number"], row_hash, key, row["input_sha256"], row["run_sha256"])
    account.reservations[reservation.number] = reservation
    account.answers.setdefault(key, []).append(reservation)


def _seal(account: Account, row: LedgerRow, row_hash: str) -> None:
    account.reservations[row["reserve"]].sealed_sha256 = row["sha256"]


def _release(account: Account, row: LedgerRow, row_hash: str) -> None:
    reservation = account.reservations[row["reserve"]]
    reservation.released, reservation.released_sha256 = row["statement_sha256"], row["sha256"]


def _ack(account: Account, row: LedgerRow, row_hash: str) -> None:
    account.reservations[row["reserve"]].acknowledged = True


def _close(account: Account, row: LedgerRow, row_hash: str) -> None:
    account.studies[row["study"]].closed = True


def _retire(account: Account, row: LedgerRow, row_hash: str) -> None:
    account.retired = True


_KINDS: dict[str, Callable[[Account, LedgerRow, str], None]] = {
    "dataset": _dataset,
    "policy": _policy,
    "approve": _approve,
    "open": _open,
    "infinite": _infinite,
    "reserve": _reserve,
    "seal": _seal,
    "release": _release,
    "ack": _ack,
    "close": _close,
    "retire": _retire,
}
