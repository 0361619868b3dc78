"""Guarantees of secure sums against a hostile server: what it can read is one sum over all members of one statement.

The clients are the real ones, each on its own disk, in one process: other processes would add nothing, for all that a
client remembers of a share is on its disk, and each is opened anew where a test says so.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hostile_sums import COLLUDER, HONEST, HostileServer, opened

from confide.client.answers import agreement, secure_round
from confide.client.privacy.sum_checks import sealed_share
from confide.client.privacy.sum_shares import held_share
from confide.common.config.run import RunConfig
from confide.common.errors import LedgerError
from confide.common.protocol import secure_sum

MakeRun = Callable[..., RunConfig]
Start = Callable[[int], HostileServer]


@pytest.fixture
def start(tmp_path: Path, make_run: MakeRun, base_folder: Path) -> Start:
    """``start(min_members)``: four institutions of which one colludes, approved, and their hostile server."""
    folders = itertools.count()
    return lambda least: HostileServer(tmp_path / str(next(folders)), make_run, base_folder, least)


def _two_halves(start: Start) -> None:
    server = start(3)
    server.collect(1)
    server.collect(2)
    first = server.statement(1)
    parts = server.shown(1, first, "site-0")
    server.recolluded(1)
    parts |= server.shown(1, server.statement(1), "site-1", "site-2")
    assert list(parts) == list(HONEST)
    assert opened(parts) == []
    assert server.shown(1, server.statement(1), "site-0") == server.shown(1, first, "site-1", "site-2") == {}
    assert opened(server.shown(2, server.statement(2), *HONEST)) == [dict.fromkeys(HONEST, 1)]


def test_two_statements_shown_to_two_halves_open_nothing(start: Start) -> None:
    """Attack 10: the server removes the masks of the institution that colludes, and still reads no combination."""
    _two_halves(start)


def _put_back(start: Start, moment: str, least: int, count: int) -> None:
    """A sum is opened; then disks of ``count`` of its members are put back, and another sum of that round is asked for.

    It opens only if all honest members that are in both were put back: as many as 2 * least - 4 - 1 at the least.
    """
    server, fewest = start(least), 2 * least - 4 - 1
    for name in HONEST:
        server.copy(name, "before RESERVE")
    server.collect(1)
    for name in HONEST:
        server.copy(name, "before RELEASE")
    members = (HONEST if least == 4 else HONEST[:2], HONEST if least == 4 else HONEST[1:])
    first = server.shown(1, server.statement(1, *members[0], COLLUDER), *members[0])
    parts = {f"first {name}": part for name, part in first.items()}
    wholes = [dict.fromkeys(parts, 1)]
    common = [name for name in members[0] if name in members[1]]
    assert len(common) == fewest
    for name in common[:count]:
        server.put_back(name, moment)
        server.collect(1, name)
    server.recolluded(1)
    second = server.shown(1, server.statement(1, *members[1], COLLUDER), *members[1])
    again = {f"second {name}": part for name, part in second.items()}
    if count == fewest:
        [whole] = wholes
        wholes += [{**whole, **dict.fromkeys(again, factor)} for factor in (1, -1)] + [dict.fromkeys(again, 1)]
    found = opened({**parts, **again})
    assert sorted(sorted(each.items()) for each in found) == sorted(sorted(each.items()) for each in wholes)


@pytest.mark.parametrize("moment", ["before RESERVE", "before RELEASE"])
@pytest.mark.parametrize(
    ("least", "count"),
    [(4, 2), pytest.param(4, 3, marks=pytest.mark.waits), pytest.param(3, 0, marks=pytest.mark.waits), (3, 1)],
)
def test_a_second_sum_opens_only_if_enough_disks_were_put_back(
    start: Start, moment: str, least: int, count: int
) -> None:
    """Attack 13: of r = 3 honest members that two sums share, two are too few; with r = 1, one is enough."""
    _put_back(start, moment, least, count)


def _receipt(start: Start) -> None:
    server = start(3)
    server.collect(1)
    server.copy("site-0", "before RELEASE")
    first = server.statement(1)
    answer = server.sum("site-0", 1, first)
    assert answer is not None
    server.put_back("site-0", "before RELEASE")
    assert server.sum("site-0", 1, first, receipt=answer.receipt()) is None
    assert isinstance(server.errors["site-0"][-1], LedgerError)
    assert "no RELEASE in this ledger" in str(server.errors["site-0"][-1])
    assert server.rows("site-0", "release") == []


def test_a_receipt_of_a_release_that_the_ledger_does_not_know_stops_the_client(start: Start) -> None:
    """Attack 13: an honest server shows what it has, and so tells an institution that its disk is an old copy."""
    _receipt(start)


def _own_envelope(start: Start) -> None:
    server = start(3)
    server.copy("site-0", "before RESERVE")
    server.collect(1)
    old = server.statement(1)
    server.put_back("site-0", "before RESERVE")
    server.collect(1, "site-0")
    assert server.sum("site-0", 1, old) is None
    assert isinstance(server.errors["site-0"][-1], LedgerError)
    assert server.rows("site-0", "release") == []


def test_an_own_envelope_that_the_ledger_does_not_know_stops_the_client(start: Start) -> None:
    """Attack 13: the same by a statement with the envelope of the share that was forgotten."""
    _own_envelope(start)


def _later_in_any_order(start: Start) -> None:
    server = start(3)
    for number in (1, 2, 3):
        server.collect(number)
    server.copy("site-0", "with three shares")
    firsts = {number: server.statement(number) for number in (1, 2, 3)}
    for number in (1, 2, 3):
        server.recolluded(number)
    for order in itertools.permutations((1, 2, 3)):
        server.put_back("site-0", "with three shares")
        answers: dict[int, Any] = {}
        for number in order:
            answers[number] = server.sum("site-0", number, firsts[number])
            assert (answers[number] is None) == any(later > number and answers.get(later) for later in order)
            assert server.sum("site-0", number, server.statement(number)) is None
        for number in order:
            again = server.sum("site-0", number, firsts[number])
            assert (again and again.to_bytes()) == (answers[number] and answers[number].to_bytes())
        left = [number for number in order if answers[number]]
        assert server.rows("site-0", "release") == sorted(left)
        assert server.rows("site-0", "reserve") == [1, 2, 3]
        assert not list((server.folder / "site-0" / "state").rglob("*.share"))


def test_shares_that_were_collected_first_leave_once_each_in_any_order(start: Start) -> None:
    """Attack 14: sums are asked for later, in every order, twice and under two statements."""
    _later_in_any_order(start)


def _salt_left_out(patch: pytest.MonkeyPatch) -> None:
    mask = secure_sum.pair_mask
    patch.setattr(secure_sum, "pair_mask", lambda shared, _, names, count: mask(shared, bytes(32), names, count))


def _no_release(patch: pytest.MonkeyPatch) -> None:
    def careless(request: Any, ledger: Any, outbox: Any, shares: Any, agree: Any, mask: Any) -> bytes:
        reservation = sealed_share(ledger.account(), request.key, (request.input_sha256, request.run_sha256))
        agree(reservation)
        content: bytes = mask(reservation, held_share(reservation, shares))[0]
        return content

    patch.setattr(secure_round, "release_sum", careless)


def _receipt_of_a_seal(patch: pytest.MonkeyPatch) -> None:
    known = agreement.acknowledge
    patch.setattr(agreement, "acknowledge", lambda head, ledger, outbox, is_sum: known(head, ledger, outbox))


def _own_rows_unread(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(secure_round, "require_own_rows", lambda statement, site: None)


Bug = Callable[[pytest.MonkeyPatch], None]
PLANTED: dict[str, tuple[Bug, Callable[[Start], None]]] = {
    "two halves: the salt left out": (_salt_left_out, _two_halves),
    "two halves: no RELEASE": (_no_release, _two_halves),
    "put back: the salt left out": (_salt_left_out, lambda start: _put_back(start, "before RELEASE", 4, 2)),
    "put back: no RELEASE": (_no_release, lambda start: _put_back(start, "before RESERVE", 3, 0)),
    "a receipt of a share that is sealed": (_receipt_of_a_seal, _receipt),
    "own envelopes not looked up": (_own_rows_unread, _own_envelope),
    "any order: no RELEASE": (_no_release, _later_in_any_order),
}


@pytest.mark.waits
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(start: Start, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plant, check = PLANTED[name]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(start)
