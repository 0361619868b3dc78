"""An old, cut or edited ledger is detected by each witness alone."""

from pathlib import Path
from typing import Any

import pytest
from support.ledgers import Place, make_ledger, nobody, open_place, rechain, reserve, write_rows

from confide.client.privacy.release import acknowledge
from confide.common.errors import LedgerError


@pytest.fixture
def restored(tmp_path: Path) -> Place:
    """A state folder whose ledger.db is a copy made before the last round, and all of its witnesses the newest."""
    place = open_place(tmp_path)
    place.ask(1)
    old = place.rows()
    place.ask(2)
    put_back(place, old)
    return place


def put_back(place: Place, rows: list[Any]) -> None:
    path = place.folder / "state" / "ledger.db"
    write_rows(path, rows)
    place.ledger = make_ledger(path, nobody)


def remove(place: Place, *witnesses: str) -> None:
    """Remove these witnesses, of "anchor", "audit" and "outbox"."""
    globs = {"anchor": "anchor/*.json", "audit": "state/audit.jsonl", "outbox": "state/outbox/*.answer"}
    for name in witnesses:
        found = list(place.folder.glob(globs[name]))
        assert found
        for file in found:
            file.unlink()


@pytest.mark.parametrize("witness", ["anchor", "audit", "outbox"])
def test_an_old_ledger_is_detected_by_each_witness_alone(restored: Place, witness: str) -> None:
    remove(restored, *{"anchor", "audit", "outbox"} - {witness})
    with pytest.raises(LedgerError, match="put"):
        open_place(restored.folder)


def test_an_old_ledger_is_detected_by_a_receipt_that_this_institution_signed(tmp_path: Path) -> None:
    place = open_place(tmp_path)
    place.ask(1)
    old = place.rows()
    place.ask(2)
    newest = place.rows()[-2][1]
    put_back(place, old)
    remove(place, "anchor", "audit", "outbox")
    again = open_place(tmp_path)
    with pytest.raises(LedgerError, match="older than what was sent"):
        acknowledge(newest, again.ledger, again.outbox)


def test_everything_local_restored_while_the_server_is_silent_is_not_detected(restored: Place) -> None:
    """As the privacy statement says."""
    remove(restored, "anchor", "audit", "outbox")
    open_place(restored.folder)


def test_a_receipt_of_an_update_without_a_seal_shows_an_old_ledger(tmp_path: Path) -> None:
    """The copy ends between RESERVE and SEAL; what was reserved later is refunded, and the receipt could tell."""
    place = open_place(tmp_path)
    place.ask(1)
    reserve(place.ledger, 2)
    head = place.rows()[2][1]
    put_back(place, place.rows()[:3])
    remove(place, "anchor", "audit", "outbox")
    again = open_place(tmp_path)
    with pytest.raises(LedgerError):
        acknowledge(head, again.ledger, again.outbox)


def test_a_ledger_that_is_gone_is_detected(tmp_path: Path) -> None:
    open_place(tmp_path).ask(1)
    for file in (tmp_path / "state").glob("ledger.db*"):
        file.unlink()
    with pytest.raises(LedgerError, match="saw row"):
        open_place(tmp_path)


@pytest.mark.parametrize("witness", ["anchor", "audit", "outbox"])
def test_rows_computed_again_are_detected_by_each_witness_alone(tmp_path: Path, witness: str) -> None:
    """Somebody lowers a charge and makes the chain whole again."""
    place = open_place(tmp_path)
    place.ask(1)
    write_rows(
        tmp_path / "state" / "ledger.db", rechain(place.rows(), lambda row: row.get("steps") == 1 and {"steps": 0})
    )
    remove(place, *{"anchor", "audit", "outbox"} - {witness})
    with pytest.raises(LedgerError):
        open_place(tmp_path)


def test_cut_rows_are_detected(tmp_path: Path) -> None:
    place = open_place(tmp_path)
    place.ask(1)
    rows = place.rows()
    for kept in range(len(rows)):
        write_rows(tmp_path / "state" / "ledger.db", rows[:kept])
        with pytest.raises(LedgerError):
            open_place(tmp_path)
    write_rows(tmp_path / "state" / "ledger.db", rows)
    open_place(tmp_path)


def test_a_copy_of_the_file_without_its_write_ahead_log_is_an_old_one(tmp_path: Path) -> None:
    place = open_place(tmp_path)
    place.ask(1)
    state = tmp_path / "state"
    content = (state / "ledger.db").read_bytes()
    assert (state / "ledger.db-wal").stat().st_size
    place.ledger._chain._db.close()
    for file in state.glob("ledger.db*"):
        file.unlink()
    (state / "ledger.db").write_bytes(content)
    with pytest.raises(LedgerError):
        open_place(tmp_path)
