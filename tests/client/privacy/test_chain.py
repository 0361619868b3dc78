"""Rows on disk: chained, salted, all or none, seen by every process; an edit anywhere shows."""

import sqlite3
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.ledgers import make_ledger, nobody, read_rows, rechain, write_rows

from confide.client.privacy.chain import Chain
from confide.client.privacy.database import Database
from confide.common.errors import ConfideError, LedgerError

CAP = {"max_epsilon": 1.0, "max_delta": 1e-5}
FIRST = {"dataset": "people", "unit": "record", "max_records_per_group": 1, "simulated": False, "order": 4, **CAP}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def grow(chain: Chain, *epsilons: float) -> None:
    """One transaction: the first row where there is none, then a policy row for each epsilon."""
    with chain.transaction() as account:
        if account.number == 0:
            chain.append("dataset", FIRST)
        for value in epsilons:
            chain.append("policy", {**CAP, "max_epsilon": value})


def begin_and_stop(chain: Chain, error: BaseException) -> None:
    with chain.transaction() as account:
        chain.append("policy" if account.number else "dataset", FIRST)
        raise error


def epsilons(path: Path) -> list[float]:
    return [row["max_epsilon"] for row, _ in read_rows(path)]


def test_rows_are_chained_from_the_first(path: Path) -> None:
    grow(Chain(Database(path), "people", nobody), 2.0, 3.0)
    rows = read_rows(path)
    assert [row["number"] for row, _ in rows] == [1, 2, 3]
    assert [row["previous"] for row, _ in rows] == ["0" * 64, rows[0][1], rows[1][1]]
    assert rechain(rows, lambda row: None) == rows


def test_a_database_knows_the_rows_of_all_its_chains_and_no_other(path: Path) -> None:
    database = Database(path)
    for name in ("people", "others"):
        grow(Chain(database, name, nobody), 2.0)
    chain = Chain(database, "people", nobody)
    assert chain.datasets() == ["others", "people"]
    assert all(chain.knows(row_hash) for _, row_hash in Chain(database, "others", nobody).rows())
    assert not chain.knows("1" * 64)


def test_a_chain_serves_every_thread(path: Path) -> None:
    """The client answers in other threads than the one that opened the ledger."""
    chain = Chain(Database(path), "people", nobody)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(grow, chain, 2.0).result()
    assert epsilons(path) == [1.0, 2.0]


def test_a_body_is_salted_so_that_its_hash_tells_nothing(tmp_path: Path) -> None:
    rows = []
    for name in ("one", "two"):
        grow(Chain(Database(tmp_path / name), "people", nobody), 2.0)
        rows += read_rows(tmp_path / name)
    assert len({row["salt"] for row, _ in rows}) == len({row_hash for _, row_hash in rows}) == 4
    assert all(len(bytes.fromhex(row["salt"])) == 16 for row, _ in rows)


def test_a_transaction_is_all_or_none(path: Path) -> None:
    chain = Chain(Database(path), "people", nobody)
    grow(chain, 2.0)
    with pytest.raises(KeyboardInterrupt):
        begin_and_stop(chain, KeyboardInterrupt())
    assert epsilons(path) == [1.0, 2.0]
    with chain.transaction() as account:
        assert (account.number, account.cap and account.cap.max_epsilon) == (2, 2.0)
    grow(chain, 5.0)
    assert epsilons(path) == [1.0, 2.0, 5.0]


def test_a_transaction_sees_every_row_that_any_process_committed(path: Path) -> None:
    one, other = Chain(Database(path), "people", nobody), Chain(Database(path), "people", nobody)
    for value in (2.0, 3.0, 4.0, 5.0):
        grow(one, value)
        grow(other, value + 0.5)
    assert epsilons(path)[1:] == [2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5]
    assert rechain(read_rows(path), lambda row: None) == read_rows(path)


def test_it_is_nobody_else_s_turn_during_a_transaction(path: Path) -> None:
    chain = Chain(Database(path), "people", nobody)
    with chain.transaction():
        other = sqlite3.connect(path, timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")


def test_rows_are_on_the_disk_when_a_transaction_ends(path: Path) -> None:
    """WAL with synchronous = FULL (2): each commit waits for the disk."""
    chain = Chain(Database(path), "people", nobody)
    assert chain._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert chain._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_witness_is_told_of_each_row_after_its_commit(path: Path) -> None:
    told = []

    def witness(row: dict[str, Any], row_hash: str) -> None:
        assert (row, row_hash) in read_rows(path)
        told.append(row["number"])

    grow(Chain(Database(path), "people", witness), 2.0, 3.0)
    assert told == [1, 2, 3]


def test_a_witness_is_told_of_nothing_that_was_rolled_back(path: Path) -> None:
    told: list[Any] = []
    chain = Chain(Database(path), "people", lambda row, row_hash: told.append(row["number"]))
    with pytest.raises(KeyError):
        begin_and_stop(chain, KeyError())
    assert told == []
    grow(chain)
    assert told == [1]


def test_each_dataset_has_a_chain_of_its_own(path: Path) -> None:
    grow(Chain(Database(path), "people", nobody), 2.0)
    grow(Chain(Database(path), "others", nobody), 3.0)
    assert epsilons(path) == [1.0, 2.0]
    assert [row["number"] for row, _ in read_rows(path, "others")] == [1, 2]


def test_only_its_owner_may_read_it(path: Path) -> None:
    grow(Chain(Database(path), "people", nobody))
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


# Edits


def first_row(change: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda rows: [({**rows[0][0], **change}, rows[0][1]), *rows[1:]]


EDITS: dict[str, Callable[[Any], Any]] = {
    "a value": first_row({"max_epsilon": 9.0}),
    "a salt": first_row({"salt": "00" * 16}),
    "another key": first_row({"more": 1}),
    "a hash": lambda rows: [(rows[0][0], "f" * 64), *rows[1:]],
    "a value and its hash": lambda rows: [*rechain(rows[:1], lambda row: {"max_epsilon": 9.0}), *rows[1:]],
    "the first row is cut": lambda rows: rows[1:],
    "a row in the middle is cut": lambda rows: [rows[0], *rows[2:]],
    "two rows changed places": lambda rows: [
        ({**rows[0][0], "number": 2}, rows[0][1]),
        ({**rows[1][0], "number": 1}, rows[1][1]),
        *rows[2:],
    ],
    "a row of another chain": lambda rows: [rows[0], *rechain(rows, lambda row: {"salt": "1"})[1:]],
    "a kind that is none of ours": lambda rows: rechain(rows, lambda row: {"kind": "refund"}),
    "a row of ours without its values": lambda rows: rechain(rows, lambda row: {"kind": "seal"}),
    "a plan that is none": lambda rows: rechain(
        rows, lambda row: row["number"] > 1 and {"kind": "open", "study": "s", "plan": {"unit": "all"}}
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_row_is_detected(path: Path, edit: str) -> None:
    grow(Chain(Database(path), "people", nobody), 2.0, 3.0, 4.0)
    write_rows(path, EDITS[edit](read_rows(path)))
    with pytest.raises(LedgerError, match="edited or cut"):
        make_ledger(path).account()


_NAN = '{"number": NaN}'


@pytest.mark.parametrize("body", ["{", "[1]", "7", "", "{}", '{"number": "2"}', _NAN])
def test_a_row_that_is_no_row_is_detected(path: Path, body: str) -> None:
    grow(Chain(Database(path), "people", nobody), 2.0)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE rows SET body = ? WHERE number = 2", (body,))
    with pytest.raises(LedgerError):
        make_ledger(path).account()


def test_an_edited_row_is_detected_before_anything_is_added(path: Path) -> None:
    chain = Chain(Database(path), "people", nobody)
    grow(chain, 2.0)
    write_rows(path, EDITS["a value"](read_rows(path)))
    with pytest.raises(LedgerError):
        grow(Chain(Database(path), "people", nobody), 3.0)
    assert len(read_rows(path)) == 2


def test_a_row_taken_back_under_a_running_process_shows_in_the_next(path: Path) -> None:
    chain = Chain(Database(path), "people", nobody)
    grow(chain, 2.0, 3.0)
    write_rows(path, read_rows(path)[:-1])
    grow(chain, 4.0)
    with pytest.raises(LedgerError):
        make_ledger(path).account()


# Files that are no ledger, disks that take nothing


def test_another_file_is_not_a_ledger(path: Path) -> None:
    path.write_bytes(b"these are notes, not a database" * 100)
    with pytest.raises(LedgerError, match="not a ledger"):
        Chain(Database(path), "people", nobody)


def test_another_table_is_not_a_ledger(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE rows(something TEXT)")
    with pytest.raises(ConfideError):
        make_ledger(path).account()


def test_a_damaged_page_is_detected(path: Path) -> None:
    chain = Chain(Database(path), "people", nobody)
    grow(chain, *range(2, 40))
    chain._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    chain._db.close()
    content = bytearray(path.read_bytes())
    content[4096:8192] = bytes(4096)
    path.write_bytes(content)
    with pytest.raises(ConfideError):
        make_ledger(path).account()


def test_a_full_disk_charges_nothing(path: Path) -> None:
    chain = Chain(Database(path), "people", nobody)
    grow(chain, 2.0)
    pages = chain._db.execute("PRAGMA page_count").fetchone()[0]
    chain._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(ConfideError, match="nothing was charged"):
        grow(chain, *range(3, 200))
    assert epsilons(path) == [1.0, 2.0]
    chain._db.execute("PRAGMA max_page_count=100000")
    grow(chain, 3.0)
    assert epsilons(path) == [1.0, 2.0, 3.0]


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    """So is a ledger.db that only root may write, because root once opened it."""
    with pytest.raises(ConfideError, match="cannot be used"):
        Chain(Database(tmp_path / "gone" / "ledger.db"), "people", nobody)


def test_a_value_that_json_does_not_have_is_never_written(path: Path) -> None:
    chain = Chain(Database(path), "people", nobody)
    with pytest.raises(ValueError, match="JSON compliant"):
        grow(chain, float("inf"))
    assert read_rows(path) == []


def test_one_row_that_the_disk_does_not_take_leaves_the_chain_whole(path: Path) -> None:
    """The account held the row that was never written: the next one followed from it, and the chain was broken."""
    chain = Chain(Database(path), "people", nobody)
    grow(chain)
    chain._db.execute("CREATE TRIGGER full BEFORE INSERT ON rows BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(ConfideError, match="cannot be used"):
        grow(chain, 2.0)
    chain._db.execute("DROP TRIGGER full")
    grow(chain, 3.0)
    assert epsilons(path) == [1.0, 3.0]
    assert Chain(Database(path), "people", nobody).read_account().number == 2
