"""Whose people are whose: the first dataset that names somebody keeps them."""

import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confide.client.people import People
from confide.common.errors import ConfideError

A, B, C = (bytes([number]) * 32 for number in range(3))


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
    keys = {bytes([number]) * 32 for number in range(50)}
    got: dict[str, set[bytes]] = {}

    def claim(name: str) -> None:
        got[name] = People(tmp_path / "people.db").claim(name, keys)

    People(tmp_path / "people.db")
    threads = [threading.Thread(target=claim, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, got.values())) == [0, 0, 50]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["one", "two"]), st.sets(st.sampled_from([A, B, C]))), max_size=8))
def test_nobody_is_ever_given_to_two_datasets(claims: list[tuple[str, set[bytes]]]) -> None:
    people, owner = People(":memory:"), dict[bytes, str]()
    for dataset, keys in claims:
        for key in sorted(keys):
            owner.setdefault(key, dataset)
        assert people.claim(dataset, keys) == {key for key in keys if owner[key] == dataset}


def test_a_claim_is_all_or_none(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    people._db.execute("PRAGMA busy_timeout=0")
    other = sqlite3.connect(people._path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ConfideError, match="cannot be written"):
        people.claim("one", {A})
    other.execute("ROLLBACK")
    assert people.claim("two", {A}) == {A}


def test_a_full_disk_claims_nobody(people: People) -> None:
    people.claim("one", {A})
    pages = people._db.execute("PRAGMA page_count").fetchone()[0]
    people._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(ConfideError, match="full"):
        people.claim("one", {number.to_bytes(32, "big") for number in range(5000)})
    assert people._db.execute("SELECT count(*) FROM people").fetchone() == (1,)


def test_the_file_holds_keyed_names_and_no_text(people: People, tmp_path: Path) -> None:
    people.claim("one", {A})
    [(key, dataset)] = sqlite3.connect(tmp_path / "people.db").execute("SELECT * FROM people")
    assert (key, dataset) == (A, "one")
