"""Whose people are whose: the first dataset that names somebody keeps them."""

import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.client.data.dataset_claims import Names, People
from confide.common.errors import ConfideError, LedgerError


def _alone(number: int) -> Names:
    """Somebody with one name, which is claimed and must not be another's."""
    return Names((number.to_bytes(32, "big"),), (number.to_bytes(32, "big"),))


A, B, C = map(_alone, range(3))
AS_RECORD = Names(claimed=(b"text",), barred=(b"text", b"inside"))
IN_A_GROUP = Names(claimed=(b"group", b"inside"), barred=(b"group", b"text"))


@pytest.fixture
def people(tmp_path: Path) -> People:
    return People(tmp_path / "people.db")


def test_the_first_dataset_that_names_somebody_keeps_them(people: People) -> None:
    assert people.claim("one", {A, B}) == {A, B}
    assert people.claim("two", {B, C}) == {C}
    assert people.claim("one", {A, B, C}) == {A, B}


def test_a_claim_again_gives_the_same(people: People) -> None:
    for _ in range(3):
        assert people.claim("one", {A}) == {A}
        assert people.claim("two", {A}) == set()


def test_only_what_was_asked_for_is_given(people: People) -> None:
    people.claim("one", {A, B})
    assert people.claim("one", {A}) == {A}
    assert people.claim("one", set()) == set()


def test_another_process_finds_the_claims(people: People, tmp_path: Path) -> None:
    people.claim("one", {A})
    assert People(tmp_path / "people.db").claim("two", {A, B}) == {B}


def test_two_that_claim_at_once_share_nobody(tmp_path: Path) -> None:
    everybody = {_alone(number) for number in range(50)}
    got: dict[str, set[Names]] = {}

    def claim(name: str) -> None:
        got[name] = People(tmp_path / "people.db").claim(name, everybody)

    People(tmp_path / "people.db")
    threads = [threading.Thread(target=claim, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, got.values())) == [0, 0, 50]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["one", "two"]), st.sets(st.sampled_from([A, B, C]))), max_size=8))
def test_nobody_is_ever_given_to_two_datasets(claims: list[tuple[str, set[Names]]]) -> None:
    people, owner = People(":memory:"), dict[Names, str]()
    for dataset, asked in claims:
        for names in asked:
            owner.setdefault(names, dataset)
        assert people.claim(dataset, asked) == {names for names in asked if owner[names] == dataset}


def test_people_that_two_units_claim_at_once_go_to_one_of_them(people: People) -> None:
    """The two claim no key in common: who looked before the transaction would find nothing of the other's."""
    first, waits, got = sqlite3.connect(people._path, isolation_level=None), threading.Event(), list[bool]()
    people._db.set_trace_callback(lambda statement: waits.set() if statement.startswith("BEGIN") else None)
    first.execute("BEGIN IMMEDIATE")
    second = threading.Thread(target=lambda: got.append(people.claim_all("two", {IN_A_GROUP})))
    second.start()
    assert waits.wait(60)
    first.executemany("INSERT INTO people VALUES (?, 'one')", [(key,) for key in AS_RECORD.claimed])
    first.execute("COMMIT")
    second.join()
    assert got == [False]


@pytest.mark.parametrize(("first", "second"), [(AS_RECORD, IN_A_GROUP), (IN_A_GROUP, AS_RECORD)])
def test_somebody_is_the_same_under_another_unit(people: People, first: Names, second: Names) -> None:
    assert people.claim_all("one", {first})
    assert not people.claim_all("two", {A, second})
    assert people.claim("two", {A, second}) == {A}
    assert people.claim_all("one", {first}), "what another dataset asks for bars nobody from the first"


def test_what_two_groups_share_of_a_text_makes_them_nobody_s_but_their_own(people: People) -> None:
    other = Names(claimed=(b"other group", b"inside"), barred=(b"other group", b"text"))
    assert people.claim_all("one", {IN_A_GROUP})
    assert people.claim_all("two", {other})
    assert people.claim("two", {IN_A_GROUP, other}) == {other}


def test_a_person_of_whom_one_record_is_another_dataset_s_is_nobody_s_here(people: People) -> None:
    more = Names(claimed=(b"group", b"more inside"), barred=(b"group", b"more"))
    people.claim("one", {AS_RECORD})
    assert people.claim("two", {more, IN_A_GROUP}) == set()
    assert people.claim("two", {more}) == {more}, "without that record they are not known"


def test_a_refused_claim_of_all_claims_nobody(people: People) -> None:
    people.claim("one", {A})
    assert not people.claim_all("two", {A, B})
    assert people.claim_all("three", {B})


def test_a_file_of_an_earlier_version_gets_its_marks_at_the_next_claim(people: People, tmp_path: Path) -> None:
    """It held groups without their texts."""
    sqlite3.connect(tmp_path / "people.db", isolation_level=None).execute(
        "INSERT INTO people VALUES (?, 'one')", (b"group",)
    )
    assert people.claim("one", {IN_A_GROUP}) == {IN_A_GROUP}
    assert not people.claim_all("two", {AS_RECORD})


def test_a_claim_is_all_or_none(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    people._db.execute("PRAGMA busy_timeout=0")
    other = sqlite3.connect(people._path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for claim in (people.claim, people.claim_all):
        with pytest.raises(ConfideError, match="cannot be written"):
            claim("one", {A})
    other.execute("ROLLBACK")
    assert people.claim("two", {A}) == {A}


def test_a_full_disk_claims_nobody(people: People) -> None:
    people.claim("one", {A})
    pages = people._db.execute("PRAGMA page_count").fetchone()[0]
    people._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(ConfideError, match="full"):
        people.claim("one", {_alone(number) for number in range(5000)})
    assert people._db.execute("SELECT count(*) FROM people").fetchone() == (1,)


def test_the_file_holds_keyed_names_and_no_text(people: People, tmp_path: Path) -> None:
    people.claim("one", {A})
    [(key, dataset)] = sqlite3.connect(tmp_path / "people.db").execute("SELECT * FROM people")
    assert (key, dataset) == (A.claimed[0], "one")


def test_to_look_whose_they_are_claims_nobody(people: People) -> None:
    people.claim("one", {A})
    assert people.elsewhere("two", {A, B}) == {A}
    assert people.elsewhere("one", {A, B}) == set()
    assert people.claim_all("three", {B})


def test_a_claim_is_on_the_disk_with_the_folder_s_entry(people: People) -> None:
    """FULL leaves the journal's entry unsynced: a power cut could undo a claim whose row in the ledger stays."""
    assert people._db.execute("PRAGMA synchronous").fetchone() == (3,), "EXTRA"
    assert people._db.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_claim_of_nobody_new_leaves_the_head(people: People) -> None:
    assert people.head() == ""
    people.claim("one", {A, B})
    head = people.head()
    people.claim("one", {A})
    people.claim("two", {B})
    assert people.head() == head != ""
    people.claim("two", {C})
    assert people.heads() == ["", head, people.head()]
    assert len(set(people.heads())) == 3


def test_a_file_that_is_only_locked_is_not_called_damaged(
    people: People, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever puts an old one back is refused for ever."""
    real = sqlite3.connect
    other = real(tmp_path / "people.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(sqlite3, "connect", lambda path, **settings: real(path, **{**settings, "timeout": 0.01}))
    with pytest.raises(ConfideError, match=r"cannot be opened: database is locked; nothing was claimed") as refused:
        People(tmp_path / "people.db")
    assert not isinstance(refused.value, LedgerError)
    other.close()
    (tmp_path / "people.db").write_bytes(b"no database" * 100)
    with pytest.raises(LedgerError, match="put back the intact file"):
        People(tmp_path / "people.db")
