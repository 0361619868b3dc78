"""Guarantees: a share leaves under one statement, one share of a round at all, through any kill and restart; what was
released is sent again byte for byte, free; share and key are gone then."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from support.ledgers import INPUT, RUN, SHARED, Crash, key, lock_is_free, make_ledger
from support.planting import Planted, plant, require_caught

from confide.client.privacy import sum_release, sum_shares
from confide.client.privacy.account import Reservation
from confide.client.privacy.ledger import Ledger
from confide.client.privacy.outbox import FileOutbox
from confide.client.privacy.release import AnswerRequest, recover, release
from confide.common import failpoints
from confide.common.errors import ConfideError, LedgerError, PolicyError
from confide.common.privacy.filter import Cap

WIDE = Cap(8.0, 1e-5, 50.0)
FIRST, SECOND = "6" * 64, "7" * 64
SHARE_PLACES = ["before-reserve", "after-reserve", "after-train", "share-written", "outbox-renamed", "before-seal"]
SUM_PLACES = ["before-release", "after-release", "outbox-written", "outbox-renamed", "sum-written", "share-forgotten"]


@dataclass
class Holding:
    """One institution's files and an opened process on them. Shares are random, masks are hashes of statements."""

    folder: Path
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.outbox, self.shares = FileOutbox(self.folder / "outbox"), FileOutbox(self.folder / "shares")
        self.ledger = make_ledger(self.folder / "ledger.db")
        recover(self.ledger, self.outbox)
        sum_shares.recover_shares(self.ledger, self.outbox, self.shares)

    def share(self, number: int = 1, adapter: str = INPUT) -> bytes:
        """The first exchange: the envelope."""

        def agree() -> tuple[Cap, None]:
            self.ledger.open_study("study", SHARED, WIDE)
            return WIDE, None

        def make(reservation: Reservation, prepared: None) -> bytes:
            return b"envelope " + os.urandom(16)

        def keep(reservation: Reservation) -> None:
            sum_shares.hold_share(reservation, os.urandom(64), self.shares)

        sum_shares.require_held(self.ledger.account(), key(number), (adapter, RUN), self.shares)
        return release(AnswerRequest(key(number), 1, 0, adapter, RUN), self.ledger, self.outbox, agree, make, keep)

    def sum(self, number: int = 1, statement: str = FIRST, adapter: str = INPUT) -> bytes:
        """The second exchange: the masked share."""

        def mask(reservation: Reservation, held: bytes) -> tuple[bytes, bytes]:
            stream = np.frombuffer(hashlib.sha512(statement.encode()).digest(), np.uint8)
            numbers = (np.frombuffer(held, np.uint8) ^ stream).tobytes()
            return b"receipt " + statement.encode() + numbers, numbers

        request = sum_release.SumRequest(key(number), adapter, RUN, statement, 4)
        return sum_release.release_sum(request, self.ledger, self.outbox, self.shares, lambda _: WIDE, mask)

    def restarted(self) -> "Holding":
        return Holding(self.folder)

    def count(self, kind: str) -> int:
        return [row["kind"] for row, _ in self.ledger.rows()].count(kind)

    def held(self) -> list[bytes]:
        return [path.read_bytes() for path in (self.folder / "shares").glob("*.share")]


@pytest.fixture
def holding(tmp_path: Path) -> Holding:
    return Holding(tmp_path)


def _killed(patch: pytest.MonkeyPatch, where: str, action: Callable[[], object]) -> None:
    def at(name: str) -> None:
        if name == where:
            raise Crash

    with patch.context() as context:
        context.setattr(failpoints, "action", at)
        with pytest.raises(Crash):
            action()


@pytest.mark.parametrize("where", SHARE_PLACES)
def test_a_share_without_a_seal_is_deleted_and_drawn_anew(
    holding: Holding, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    _killed(monkeypatch, where, holding.share)
    old = holding.held()
    again = holding.restarted()
    assert again.held() == []
    again.share()
    assert not set(again.held()) & set(old)
    assert again.count("reserve") == 1 + (where != "before-reserve")
    assert again.count("release") == 0


def test_a_sealed_envelope_is_the_same_however_often_and_costs_nothing(holding: Holding) -> None:
    first = holding.share()
    assert [holding.share(), holding.restarted().share()] == [first, first]
    assert (holding.count("reserve"), holding.count("seal"), len(holding.held())) == (1, 1, 1)


@pytest.mark.parametrize("where", SUM_PLACES)
def test_a_share_leaves_under_one_statement_whatever_dies(
    holding: Holding, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    holding.share()
    _killed(monkeypatch, where, holding.sum)
    again = holding.restarted()
    released = again.count("release")
    assert released == (where != "before-release")
    if released:
        with pytest.raises(PolicyError, match="has left under another statement"):
            again.sum(statement=SECOND)
    answer = again.sum()
    assert again.restarted().sum() == answer == again.sum()
    assert again.count("release") == again.count("reserve") == 1
    assert again.held() == again.restarted().held() == []
    row = next(row for row, _ in again.ledger.rows() if row["kind"] == "release")
    assert row["sha256"] == hashlib.sha256(answer[-64:]).hexdigest()


def test_what_was_released_is_masked_as_it_was_after_a_kill(holding: Holding, monkeypatch: pytest.MonkeyPatch) -> None:
    """RELEASE is on the disk, the masked share is not: it is made again from the share, which must be the same one."""
    holding.share()
    _killed(monkeypatch, "after-release", holding.sum)
    [path] = (holding.folder / "shares").glob("*.share")
    kept = path.read_bytes()
    path.write_bytes(bytes([kept[0] ^ 1]) + kept[1:])
    with pytest.raises(LedgerError, match="gone, or was changed"):
        holding.restarted().sum()
    path.unlink()
    with pytest.raises(LedgerError, match="gone, or was changed"):
        holding.restarted().sum()
    path.write_bytes(kept)
    assert holding.restarted().sum()


def test_a_round_has_one_release_also_with_two_shares(holding: Holding) -> None:
    """The server asks twice in a round, for two adapters: two charges, and one share that leaves."""
    holding.share()
    holding.share(adapter="8" * 64)
    assert (holding.count("reserve"), len(holding.held())) == (2, 2)
    holding.sum(adapter="8" * 64)
    with pytest.raises(PolicyError, match="another share of it has left"):
        holding.sum()
    assert (holding.count("release"), holding.held()) == (1, [])


def test_a_release_deletes_the_shares_of_rounds_that_it_passes(holding: Holding) -> None:
    holding.share(1)
    holding.share(2)
    holding.share(3)
    holding.sum(2)
    assert len(holding.held()) == 1
    with pytest.raises(PolicyError, match="not held any more"):
        holding.sum(1)
    holding.sum(3)
    assert holding.held() == []


def test_an_older_ledger_than_the_shares_is_noticed(holding: Holding, tmp_path: Path) -> None:
    holding.share()
    [path] = (tmp_path / "shares").glob("*.share")
    path.rename(path.with_name("9" * 64 + ".share"))
    with pytest.raises(LedgerError, match=r"ledger\.db is older"):
        holding.restarted()


def test_a_masked_share_without_a_release_is_of_a_newer_ledger(holding: Holding) -> None:
    holding.share()
    [answer] = (holding.folder / "outbox").glob("*.answer")
    answer.with_suffix(".sum").write_bytes(b"masked")
    with pytest.raises(LedgerError, match=r"ledger\.db is older"):
        holding.restarted()


def test_no_other_process_deletes_a_share_on_its_way_to_its_seal(
    holding: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command opens the installation meanwhile; it would wait for the lock, so here it only tries it."""
    could: dict[str, bool] = {}

    def try_the_lock(name: str) -> None:
        could[name] = lock_is_free(holding.folder / "outbox")

    monkeypatch.setattr(failpoints, "action", try_the_lock)
    holding.share()
    assert not could["share-written"]
    assert not could["before-seal"]
    assert could["after-train"], "a start waits for no computation"


def test_an_envelope_whose_share_is_gone_is_not_sent_again(holding: Holding) -> None:
    """A disk was restored without its shares: the round goes on without this institution."""
    holding.share()
    [path] = (holding.folder / "shares").glob("*.share")
    path.unlink()
    with pytest.raises(PolicyError, match="takes no part in a sum"):
        holding.restarted().share()


def test_a_half_written_share_is_deleted_at_the_next_start(holding: Holding, monkeypatch: pytest.MonkeyPatch) -> None:
    _killed(monkeypatch, "outbox-written", holding.share)
    assert list((holding.folder / "shares").glob(".*.tmp"))
    holding.restarted()
    assert not list((holding.folder / "shares").glob(".*.tmp"))


def test_shares_of_a_closed_study_are_deleted(holding: Holding) -> None:
    holding.share()
    holding.ledger.close("study")
    assert holding.restarted().held() == []


def test_only_the_masked_share_is_in_the_outbox(holding: Holding) -> None:
    holding.share()
    [held] = holding.held()
    for path in (holding.folder / "outbox").iterdir():
        assert held[:16] not in path.read_bytes()
    holding.sum()
    for path in (holding.folder / "outbox").iterdir():
        assert held[:16] not in path.read_bytes()


def test_a_lowered_cap_keeps_a_share_at_home(holding: Holding) -> None:
    holding.share()
    request = sum_release.SumRequest(key(), INPUT, RUN, FIRST, 4)

    def lowered(reservation: Reservation) -> Cap:
        return Cap(0.01, 1e-5, 0.01)

    with pytest.raises(Exception, match="epsilon"):
        sum_release.release_sum(request, holding.ledger, holding.outbox, holding.shares, lowered, lambda r, h: (h, h))
    assert holding.count("release") == 0
    assert len(holding.held()) == 1


def _of(test: Callable[..., None], *arguments: object) -> Callable[[], None]:
    """A test on a fresh folder, as a check."""

    def check() -> None:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            holding = Holding(Path(folder))
            takes_patch = "monkeypatch" in test.__code__.co_varnames[: test.__code__.co_argcount]
            test(holding, *([patch] if takes_patch else []), *arguments)

    return check


PLANTED: Planted = {
    "release-after-the-outbox": (
        'failpoint("before-release")',
        'outbox.put(reservation.sum_file, content); failpoint("before-release")',
        _of(test_a_share_leaves_under_one_statement_whatever_dies, "before-release"),
    ),
    "another-statement-is-fine": (
        "if reservation.released not in (None, request.statement_sha256):",
        "if False:",
        _of(test_a_share_leaves_under_one_statement_whatever_dies, "after-release"),
    ),
}
PLANTED_IN_SHARES: Planted = {
    "share-kept-after-it-was-sent": (
        "if item.sealed_sha256 is None or is_sent or",
        "if item.sealed_sha256 is None or",
        _of(test_a_share_leaves_under_one_statement_whatever_dies, "sum-written"),
    ),
    "passed-shares-kept": (
        "(passed and item.released is None)",
        "False",
        _of(test_a_release_deletes_the_shares_of_rounds_that_it_passes),
    ),
    "half-written-shares-stay": (
        "    with outbox.idle(), shares.idle():\n        forget_shares",
        "    with outbox.idle():\n        forget_shares",
        _of(test_a_half_written_share_is_deleted_at_the_next_start),
    ),
    "an-envelope-without-its-share": (
        "shares.get(item.share_file) is None:",
        "False:",
        _of(test_an_envelope_whose_share_is_gone_is_not_sent_again),
    ),
    "unsealed-shares-kept": (
        "if item.sealed_sha256 is None or is_sent",
        "if is_sent",
        _of(test_a_share_without_a_seal_is_deleted_and_drawn_anew, "before-seal"),
    ),
    "a-changed-share-goes-out": (
        "hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]",
        "False",
        _of(test_what_was_released_is_masked_as_it_was_after_a_kill),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_caught(monkeypatch, sum_release, PLANTED[name])


@pytest.mark.parametrize("name", PLANTED_IN_SHARES)
def test_a_bug_in_the_shares_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong, check = PLANTED_IN_SHARES[name]
    check()
    plant(monkeypatch, sum_shares, right, wrong)
    for imported in ("forget_shares", "held_share"):
        monkeypatch.setattr(sum_release, imported, getattr(sum_shares, imported))
    with pytest.raises((AssertionError, pytest.fail.Exception, ConfideError)):
        check()
