"""secret.key and people.db: another one in their place is noticed at the next opening, and a newer one is accepted."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.installations import write_site
from support.ledgers import CAP, OTHER, PLAN, make_ledger, reserve

from confide.client.data.dataset_claims import Names, People
from confide.client.privacy.rollback import Witnesses
from confide.client.site.commitments import commit_to_people, commit_to_secret
from confide.client.site.installation import Site, open_site
from confide.client.steward.ledger_report import export_lines
from confide.common.errors import LedgerError
from confide.common.verify.command import verify


def _people(*numbers: int) -> set[Names]:
    return {Names((number.to_bytes(32, "big"),), (number.to_bytes(32, "big"),)) for number in numbers}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The site.toml of an institution that has joined a study and answered one round."""
    return _joined(tmp_path, "people", 1)


def _joined(folder: Path, dataset: str, *people: int) -> Path:
    state = {"dir": str(folder / "state"), "anchor": str(folder / "state-anchor")}
    path = write_site(folder / dataset, [], dataset={"id": dataset}, state=state)
    site = open_site(path)
    assert site.data.claims.claim_all(dataset, _people(*people))
    site.ledger.open_study("study", PLAN, CAP)
    reserve(site.ledger)
    return path


def _state(path: Path) -> Path:
    return path.parents[1] / "state"


def _rows(site: Site, kind: str) -> list[dict[str, Any]]:
    return [row for row, _ in site.ledger.rows() if row["kind"] == kind]


# secret.key


def test_the_first_row_commits_to_the_secret_and_tells_neither_it_nor_its_owner(path: Path) -> None:
    site, other = open_site(path), open_site(_joined(path.parents[1], "others", 2))
    found = [_rows(each, "dataset")[0]["secret_commitment"] for each in (site, other)]
    assert found == [commit_to_secret(site.data.secret, "people"), commit_to_secret(site.data.secret, "others")]
    assert found[0] != found[1], "two exports of one institution do not show that they are"
    assert site.data.secret.hex() not in json.dumps(export_lines(path))
    assert commit_to_secret(bytes(32), "people") not in found


@pytest.mark.parametrize("opened", ["people", "others"])
def test_another_secret_in_the_place_of_the_first_is_refused(path: Path, opened: str) -> None:
    """By every dataset of the state folder: one that joins now would not know the others' people."""
    state = _state(path)
    place = {"dir": str(state), "anchor": str(state.with_name("state-anchor"))}
    write_site(path.parents[1] / "others", [], dataset={"id": "others"}, state=place)
    mine = (state / "secret.key").read_bytes()
    (state / "secret.key").write_bytes(os.urandom(32))
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"secret\.key: .* first row .*'people'.* put back .* backup"):
            open_site(path.parents[1] / opened / "site.toml")
    (state / "secret.key").write_bytes(mine)
    open_site(path)


@pytest.mark.parametrize("left", ["ledger.db", "people.db", "anchor"])
def test_a_secret_that_is_gone_is_not_drawn_anew_if_anything_shows_it_existed(path: Path, left: str) -> None:
    """Else whoever puts back the ledger afterwards goes on with another one."""
    state = _state(path)
    for file in state.iterdir():
        if file.is_file() and not file.name.startswith(left):
            file.unlink()
    if left != "anchor":
        shutil.rmtree(state.with_name("state-anchor"))
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"secret\.key is gone, though .* is there; put it back"):
            open_site(path)
    assert not (state / "secret.key").exists()


def test_a_secret_that_came_between_two_looks_is_no_lost_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes that open a site for the first time, the slower looks when the faster is done."""
    path, exists, looked = write_site(tmp_path), Path.exists, list[Path]()

    def look(place: Path) -> bool:
        there = exists(place)
        if place.name == "secret.key" and not looked:
            looked.append(place)
            open_site(path)
        return there

    monkeypatch.setattr(Path, "exists", look)
    assert open_site(path).data.secret == (tmp_path / "state" / "secret.key").read_bytes()


# The secret of a ledger that an earlier version began


def _forget(path: Path) -> None:
    """The ledger as an earlier version would have begun it."""
    state, anchor = _state(path), path.parents[1] / "state-anchor"
    for file in [*state.glob("ledger.db*"), state / "audit.jsonl", *anchor.iterdir()]:
        file.unlink()
    ledger = make_ledger(state / "ledger.db", Witnesses(anchor, state / "audit.jsonl", "people"))
    ledger.open_study("study", PLAN, CAP)
    reserve(ledger)


@pytest.fixture
def old(path: Path) -> Path:
    _forget(path)
    return path


def _witnesses(path: Path) -> list[str]:
    """What anchor and audit log hold of the secret."""
    state = _state(path)
    [anchor] = [json.loads(file.read_text()) for file in state.with_name("state-anchor").iterdir()]
    audit = [json.loads(line) for line in (state / "audit.jsonl").read_text().splitlines()]
    return [entry["secret_commitment"] for entry in (anchor, *audit) if "secret_commitment" in entry]


def test_witnesses_of_an_old_ledger_commit_to_its_secret_at_the_next_opening(old: Path) -> None:
    """Once: later openings add nothing."""
    assert _witnesses(old) == []
    for number in (2, 3):
        site = open_site(old)
        assert _witnesses(old) == [commit_to_secret(site.data.secret, "people")] * 2
        reserve(site.ledger, number)
        assert _witnesses(old) == [commit_to_secret(site.data.secret, "people")] * 2, "the anchor keeps it"


@pytest.mark.parametrize("gone", ["anchor", "audit"])
def test_another_secret_of_an_old_ledger_is_refused_by_either_witness(old: Path, gone: str) -> None:
    open_site(old)
    state = _state(old)
    for file in state.with_name("state-anchor").iterdir() if gone == "anchor" else [state / "audit.jsonl"]:
        file.unlink()
    mine = (state / "secret.key").read_bytes()
    (state / "secret.key").write_bytes(os.urandom(32))
    with pytest.raises(LedgerError, match=r"secret\.key: .* 'people'.* put back .* backup"):
        open_site(old)
    (state / "secret.key").write_bytes(mine)
    reserve(open_site(old).ledger, 2)
    open_site(old)
    assert len(_witnesses(old)) == 2, "the one that is gone is made anew"


# people.db


def _lose(people: Path) -> None:
    people.unlink()


def _put_back_an_old_copy(people: Path) -> None:
    shutil.copy(people.with_name("people.old"), people)


def _execute(statement: str) -> Callable[[Path], None]:
    def edit(people: Path) -> None:
        database = sqlite3.connect(people, isolation_level=None)
        database.execute(statement)
        database.close()

    edit.__name__ = statement.partition(" SET")[0]
    return edit


_DAMAGES = [
    _lose,
    _put_back_an_old_copy,
    _execute("DELETE FROM people WHERE key = (SELECT max(key) FROM people)"),
    _execute("UPDATE people SET dataset = 'mine'"),
    _execute("DELETE FROM claims WHERE number = 1"),
    _execute("UPDATE claims SET dataset = 'mine'"),
    _execute("UPDATE claims SET keys = ''"),
    _execute("UPDATE claims SET keys = x'00'"),
    _execute("UPDATE claims SET head = NULL"),
    _execute("INSERT INTO people VALUES ('text', NULL)"),
]


def _damaged(path: Path, damage: Callable[[Path], None]) -> Path:
    """people.db, damaged after a second claim that a row has seen."""
    people = _state(path) / "people.db"
    shutil.copy(people, people.with_name("people.old"))
    site = open_site(path)
    site.data.claims.claim("people", _people(2, 3))
    reserve(site.ledger, 2)
    shutil.copy(people, people.with_name("people.new"))
    damage(people)
    return people


@pytest.mark.parametrize("damage", _DAMAGES, ids=lambda damage: damage.__name__)
def test_people_that_a_row_has_seen_and_that_are_not_there_now_are_refused(
    path: Path, damage: Callable[[Path], None]
) -> None:
    people = _damaged(path, damage)
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"people\.db: .* put back"):
            open_site(path)
    shutil.copy(people.with_name("people.new"), people)
    open_site(path)


def test_a_dataset_without_rows_does_not_begin_on_an_outdated_people_db(
    path: Path,
) -> None:
    """Rows of another dataset know a newer one: who deletes people.db because a joining was refused would join next."""
    _damaged(path, _lose)
    with pytest.raises(LedgerError, match=r"people\.db: .*'people'"):
        _joined(path.parents[1], "others", 1)


def test_claims_that_no_row_has_seen_yet_are_accepted(path: Path) -> None:
    """A crash between a claim and its row; another process that claims meanwhile; another dataset's people."""
    site = open_site(path)
    site.data.claims.claim("people", _people(2))
    site = open_site(path)
    other = open_site(_joined(path.parents[1], "others", 3, 4))
    site.data.claims.claim("people", _people(5))
    reserve(site.ledger, 2)
    other.data.claims.claim("others", _people(6))
    reserve(other.ledger, 2)
    for each in (path, path.parents[1] / "others" / "site.toml"):
        open_site(each)
        assert open_site(each).data.claims.claim("third", _people(*range(1, 7))) == set()


def test_every_open_and_reserve_commits_to_the_people_and_no_two_alike(path: Path) -> None:
    """Else an export would tell whether anybody came between two rounds, or whether there is anybody."""
    site = open_site(path)
    reserve(site.ledger, 2)
    rows = [*_rows(site, "open"), *_rows(site, "reserve")]
    assert len({row["people"] for row in rows}) == 3
    heads = People(_state(path) / "people.db").heads()
    assert len(heads) == 2, "nobody, and the one claim"
    assert [row["people"] for row in rows] == [
        commit_to_people(site.data.secret, row["previous"], heads[-1]) for row in rows
    ]
    assert not any(head and head in line for head in heads for line in export_lines(path))


def test_nobody_at_all_is_committed_to_alike(tmp_path: Path) -> None:
    path = _joined(tmp_path, "people")
    site = open_site(path)
    assert all(len(row["people"]) == 64 for row in _rows(site, "reserve"))
    (tmp_path / "state" / "people.db").unlink()
    open_site(path)


def test_people_of_an_earlier_version_are_taken_in_at_the_next_opening(old: Path) -> None:
    people = _state(old) / "people.db"
    _execute("DROP TABLE claims")(people)
    _execute("INSERT INTO people VALUES (x'0a', 'others')")(people)
    site = open_site(old)
    assert len(People(people).heads()) == 3
    reserve(site.ledger, 2)
    open_site(old)
    _execute("DELETE FROM people WHERE key = x'0a'")(people)
    with pytest.raises(LedgerError, match=r"people\.db"):
        open_site(old)


def test_a_ledger_without_the_new_fields_goes_on_with_people_that_it_never_saw(old: Path) -> None:
    (_state(old) / "people.db").unlink()
    site = open_site(old)
    reserve(site.ledger, 2)
    assert ["people" in row for row in _rows(site, "reserve")] == [False, True]
    open_site(old)


def test_both_forms_are_verified(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        export = tmp_path / f"export-{number}.jsonl"
        export.write_text("".join(f"{line}\n" for line in export_lines(path)), encoding="utf-8")
        assert ("secret_commitment" in export.read_text()) == (number == 0)
        verify(export)
        verify(_state(path) / "ledger.db")
        assert "1 of 6 steps" in capsys.readouterr().out
        _forget(path)


def test_a_simulated_ledger_commits_to_nothing_for_its_secret_is_everybody_s() -> None:
    ledger = make_ledger(simulated=True)
    ledger.open_study("study", OTHER, CAP)
    assert not any({"people", "secret_commitment"} & row.keys() for row, _ in ledger.rows())
