"""The anchor and the audit log: what they saw, an old ledger cannot deny; what a crash tore, they forgive."""

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.ledgers import CAP, OTHER, PLAN, make_ledger, reserve

from confide.client.privacy import rollback as witnesses_module
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.rollback import Witnesses
from confide.common import durable
from confide.common.errors import ConfideError, LedgerError
from confide.common.privacy.filter import Cap


@pytest.fixture
def witnesses(tmp_path: Path) -> Witnesses:
    return Witnesses(tmp_path / "anchor", tmp_path / "audit.jsonl", "people")


@pytest.fixture
def ledger(tmp_path: Path, witnesses: Witnesses) -> Ledger:
    result = make_ledger(tmp_path / "ledger.db", witnesses)
    result.open_study("study", PLAN, CAP)
    return result


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]


def anchor(tmp_path: Path) -> Path:
    [file] = (tmp_path / "anchor").glob("*.json")
    return file


def test_the_anchor_holds_the_newest_row(tmp_path: Path, ledger: Ledger) -> None:
    for number in (1, 2):
        reserve(ledger, number)
        row, row_hash = ledger.rows()[-1]
        assert json.loads(anchor(tmp_path).read_text()) == {
            "dataset": "people",
            "number": row["number"],
            "hash": row_hash,
        }


def test_the_first_row_is_anchored_in_folders_that_are_made(tmp_path: Path) -> None:
    for number in (1, 2):
        witnesses = Witnesses(tmp_path / "state" / "anchor", tmp_path / "log" / "audit.jsonl", "people")
        witnesses({"number": number, "kind": "policy", "time": 0}, f"{number:064}")
        [file] = (tmp_path / "state" / "anchor").iterdir()
        assert json.loads(file.read_text())["number"] == number


def test_a_commitment_joins_an_anchor_that_is_there(tmp_path: Path, witnesses: Witnesses) -> None:
    """An anchor with a commitment and no row would be a witness of nothing."""
    witnesses.commit("c" * 64)
    assert list((tmp_path / "anchor").iterdir()) == []
    witnesses({"number": 1, "kind": "dataset", "time": 0}, "1" * 64)
    witnesses.commit("c" * 64)
    assert json.loads(anchor(tmp_path).read_text())["secret_commitment"] == "c" * 64
    told = [line for line in lines(tmp_path) if line["event"] == "commitment"]
    assert [(line["of"], line["secret_commitment"]) for line in told] == [("people", "c" * 64)], "once"
    places = [str(anchor(tmp_path)), str(tmp_path / "audit.jsonl")]
    assert witnesses.commitments() == [(place, "people", "c" * 64) for place in places]
    assert stat.S_IMODE(anchor(tmp_path).stat().st_mode) == 0o600


def test_the_audit_log_has_a_line_for_every_row(tmp_path: Path, ledger: Ledger) -> None:
    reserve(ledger, 1, Cap(9.0, 1e-5))
    expected = [(row["kind"], row["number"], row_hash, row["time"]) for row, row_hash in ledger.rows()]
    assert [(line["event"], line["number"], line["hash"], line["time"]) for line in lines(tmp_path)] == expected
    assert [line["event"] for line in lines(tmp_path)] == ["dataset", "open", "policy", "reserve"]
    assert lines(tmp_path)[2]["max_epsilon"] == 9.0, "raising a cap is an edit with an audit line"
    assert (lines(tmp_path)[3]["study"], lines(tmp_path)[3]["round"], lines(tmp_path)[3]["steps"]) == ("study", 1, 1)


def test_a_note_is_a_line_that_is_no_row(tmp_path: Path, witnesses: Witnesses, ledger: Ledger) -> None:
    witnesses.note("refused", reason="a reason")
    assert lines(tmp_path)[-1].keys() == {"time", "event", "reason"}
    witnesses.check(ledger.rows)


def test_only_their_owner_may_read_them(tmp_path: Path, ledger: Ledger) -> None:
    for path, mode in ((tmp_path / "anchor", 0o700), (anchor(tmp_path), 0o600), (tmp_path / "audit.jsonl", 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_each_dataset_has_an_anchor_of_its_own(tmp_path: Path, ledger: Ledger, witnesses: Witnesses) -> None:
    others = Witnesses(tmp_path / "anchor", tmp_path / "audit.jsonl", "others")
    other = make_ledger(tmp_path / "ledger.db", others, dataset="others")
    other.open_study("study", OTHER, CAP)
    reserve(other)
    assert len(list((tmp_path / "anchor").iterdir())) == 2
    witnesses.check(ledger.rows)
    others.check(other.rows)
    with pytest.raises(LedgerError):
        others.check(ledger.rows)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "x" * 4000, "\u202e", "ä"])
def test_any_dataset_id_has_an_anchor(tmp_path: Path, name: str) -> None:
    ledger = make_ledger(
        tmp_path / "ledger.db", Witnesses(tmp_path / "a", tmp_path / "audit.jsonl", name), dataset=name
    )
    ledger.open_study("study", PLAN, CAP)
    assert len(list((tmp_path / "a").iterdir())) == 1


# What they saw


def test_a_ledger_that_goes_on_is_accepted(ledger: Ledger, witnesses: Witnesses) -> None:
    for number in range(1, 4):
        witnesses.check(ledger.rows)
        reserve(ledger, number)
    witnesses.check(ledger.rows)


def test_before_the_first_row_there_is_nothing_to_see(witnesses: Witnesses) -> None:
    witnesses.check(list)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "cut": lambda rows: rows[:-1],
    "empty": lambda rows: [],
    "another last row": lambda rows: [*rows[:-1], (rows[-1][0], "f" * 64)],
    "longer with another row": lambda rows: [*rows[:-1], (rows[-1][0], "f" * 64), rows[-1]],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("witness", ["anchor", "audit"])
def test_an_older_ledger_or_another_is_refused_by_either(
    tmp_path: Path, ledger: Ledger, witnesses: Witnesses, witness: str, change: str
) -> None:
    reserve(ledger)
    (anchor(tmp_path) if witness == "audit" else tmp_path / "audit.jsonl").unlink()
    witnesses.check(ledger.rows)
    with pytest.raises(LedgerError, match=r"saw row .* put back the newest"):
        witnesses.check(lambda: CHANGES[change](ledger.rows()))


def test_the_audit_log_saw_every_row_and_not_only_the_last(
    tmp_path: Path, ledger: Ledger, witnesses: Witnesses
) -> None:
    reserve(ledger)
    rows = ledger.rows()
    anchor(tmp_path).unlink()
    with pytest.raises(LedgerError):
        witnesses.check(lambda: [(rows[0][0], "f" * 64), *rows[1:]])


# What a crash tore


@pytest.mark.parametrize("kept", [1, 20, 60, -2])
def test_a_half_written_line_is_passed_over_and_the_next_stands_alone(
    tmp_path: Path, ledger: Ledger, witnesses: Witnesses, kept: int
) -> None:
    reserve(ledger)
    audit = tmp_path / "audit.jsonl"
    *whole, last = audit.read_bytes().splitlines(keepends=True)
    audit.write_bytes(b"".join(whole) + last[:kept])
    witnesses.check(ledger.rows)
    reserve(ledger, 2)
    assert json.loads(audit.read_bytes().splitlines()[-1])["number"] == 4
    witnesses.check(ledger.rows)
    with pytest.raises(LedgerError):
        witnesses.check(lambda: ledger.rows()[:3])


@pytest.mark.parametrize("content", [b"", b"{", b"[]x", b"7", b"\xff\xfe"])
def test_an_anchor_that_is_none_refuses(tmp_path: Path, ledger: Ledger, witnesses: Witnesses, content: bytes) -> None:
    anchor(tmp_path).write_bytes(content)
    with pytest.raises(LedgerError):
        witnesses.check(ledger.rows)


@pytest.mark.parametrize("number", [0, -1, True, 1.0, "1", None, 10**30])
def test_an_anchor_with_a_number_that_is_none_refuses(
    tmp_path: Path, ledger: Ledger, witnesses: Witnesses, number: Any
) -> None:
    seen = {"dataset": "people", "number": number, "hash": ledger.rows()[-1][1]}
    anchor(tmp_path).write_text(json.dumps(seen))
    with pytest.raises(LedgerError):
        witnesses.check(ledger.rows)


def test_a_temporary_file_of_a_crash_is_in_nobody_s_way(tmp_path: Path, ledger: Ledger, witnesses: Witnesses) -> None:
    (anchor(tmp_path).parent / f".{anchor(tmp_path).name}.tmp").write_bytes(b"{")
    witnesses.check(ledger.rows)
    reserve(ledger)
    witnesses.check(ledger.rows)


def test_the_anchor_never_goes_back(tmp_path: Path, ledger: Ledger, witnesses: Witnesses) -> None:
    """Two processes may tell of their rows in another order than they committed them."""
    reserve(ledger)
    newest = anchor(tmp_path).read_bytes()
    witnesses(*ledger.rows()[0])
    assert anchor(tmp_path).read_bytes() == newest


def test_a_full_disk_is_an_error_of_ours_and_the_charge_stays(
    ledger: Ledger, witnesses: Witnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*rest: Any) -> None:
        raise OSError(28, "No space left on device", "audit.jsonl")

    for name in ("append_durably", "replace_durably"):
        with monkeypatch.context() as context:
            context.setattr(witnesses_module, name, full)
            with pytest.raises(ConfideError, match="No space left"):
                reserve(ledger)
    assert ledger.account().reserved()["study"].num_steps == 2
    witnesses.check(ledger.rows)


_FILL = """
import resource, signal, sys
from pathlib import Path
from confide.common.durable import append_durably
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
append_durably(Path(sys.argv[1]), "x" * 990)
try:
    append_durably(Path(sys.argv[1]), "y" * 20)
except OSError:
    print("an error")
"""


def test_a_line_that_the_disk_took_half_of_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _FILL, str(tmp_path / "audit")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "an error\n", done.stderr


# Two processes at once


def at_the_rename(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Another process acts after this one has written its temporary anchor, and before it has renamed it."""
    write, seen = durable.write_durably, list[str]()

    def slow(path: Path, *rest: Any) -> None:
        write(path, *rest)
        if not seen:
            seen.append(path.name)
            meanwhile()

    monkeypatch.setattr(durable, "write_durably", slow)


def test_two_processes_can_tell_of_their_rows_at_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_ledger(ledger._chain._database.path, ledger._chain._witness)
    at_the_rename(monkeypatch, lambda: reserve(other, 2))
    reserve(ledger, 1)
