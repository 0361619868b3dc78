"""The release protocol, whatever crashes or comes between: charged once more at most, sealed or never sent."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.accounts import replay
from support.ledgers import (
    ARROWS,
    CAP,
    INPUT,
    PLAN,
    RUN,
    Crash,
    Place,
    head_of,
    key,
    lock_is_free,
    make_ledger,
    open_place,
    read_rows,
    restarted,
    rows_of,
)

from confide.client.privacy.release import acknowledge
from confide.common import failpoints
from confide.common.errors import BudgetError, PolicyError

SENT_AGAIN = ARROWS[-1:]  # crashes after which the answer is there


def crash(place: Place, where: str, patch: pytest.MonkeyPatch, number: int = 1, hit: int = 1) -> None:
    """Ask, and end the process at the n-th time that it comes to a place."""
    hits: list[str] = []

    def action(name: str) -> None:
        hits.append(name)
        if hits.count(where) == hit and name == where:
            raise Crash

    with patch.context() as context:
        context.setattr(failpoints, "action", action)
        with pytest.raises(Crash):
            place.ask(number)


@pytest.mark.parametrize("where", ARROWS)
def test_after_a_crash_the_answer_is_sealed_or_was_never_sent(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    crash(place, where, monkeypatch)
    sealed = rows_of(place, "seal")
    assert bool(sealed) == (where in SENT_AGAIN)
    content = restarted(place).ask()
    if sealed:
        assert hashlib.sha256(content).hexdigest() == sealed[0]["sha256"]
    assert len(rows_of(place, "reserve")) == 1 + (where not in ("before-reserve", *SENT_AGAIN))
    assert replay(place.rows()).problems == []


@pytest.mark.parametrize("where", ARROWS[1:-1])
def test_a_crash_refunds_nothing_and_a_round_has_one_retry_at_most(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    for _ in range(2):
        crash(restarted(place), where, monkeypatch)
    third = restarted(place)
    with pytest.raises(PolicyError, match="had its retry"):
        third.ask()
    assert third.made == 0
    assert third.ledger.account().reserved()["study"].num_steps == 2
    for number in range(2, 6):
        third.ask(number)
    with pytest.raises(BudgetError):
        third.ask(6)


@pytest.mark.parametrize("where", ["outbox-written", "outbox-renamed", "before-seal"])
def test_an_orphan_in_the_outbox_is_deleted_and_never_sent(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    crash(place, where, monkeypatch)
    folder = place.folder / "state" / "outbox"
    orphans = {file.read_bytes() for file in folder.iterdir() if file.name != ".lock"}
    assert len(orphans) == 1
    second = restarted(place)
    assert [file.name for file in folder.iterdir()] == [".lock"]
    assert second.ask() not in orphans


def test_an_orphan_is_not_sent_even_without_a_restart(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    crash(place, "before-seal", monkeypatch)
    [orphan] = (place.folder / "state" / "outbox").glob("*.answer")
    assert place.ask() != orphan.read_bytes()


def test_no_other_process_recovers_while_an_answer_has_a_file_and_no_seal(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start takes the lock alone (`FileOutbox.idle`); had it got it here, it would delete the answer."""
    could: dict[str, bool] = {}

    def try_the_lock(name: str) -> None:
        could[name] = lock_is_free(place.folder / "state" / "outbox")

    monkeypatch.setattr(failpoints, "action", try_the_lock)
    place.ask()
    on_their_way = {"outbox-written": False, "outbox-renamed": False, "before-seal": False}
    assert {name: could[name] for name in on_their_way} == on_their_way
    assert could["after-train"], "a start waits for no computation"
    assert could["after-seal"], "and for nothing that is sealed"


@pytest.mark.parametrize("hit", range(1, 5))
def test_a_crash_between_a_row_and_its_witness_breaks_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, hit: int
) -> None:
    """Rows: dataset, open, reserve, seal."""
    crash(place, "witness-written", monkeypatch, hit=hit)
    restarted(place).ask()
    assert replay(place.rows()).problems == []


@pytest.mark.parametrize("where", ["before-acknowledge", "after-acknowledge"])
def test_a_crash_at_an_acknowledgement_breaks_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    content, head = place.ask(), head_of(place)
    with monkeypatch.context() as context:
        context.setattr(failpoints, "action", raise_at(where))
        with pytest.raises(Crash):
            acknowledge(head, place.ledger, place.outbox)
    second = restarted(place)
    acknowledge(head, second.ledger, second.outbox)
    assert len(rows_of(place, "ack")) == 1
    assert second.ask() == content


def raise_at(where: str) -> Callable[[str], None]:
    def action(name: str) -> None:
        if name == where:
            raise Crash

    return action


def test_two_attempts_draw_everything_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    crash(place, "before-seal", monkeypatch)
    [orphan] = (place.folder / "state" / "outbox").glob("*.answer")
    first = orphan.read_bytes()
    second = restarted(place).ask()
    assert not {first[i : i + 8] for i in range(0, 64, 8)} & {second[i : i + 8] for i in range(0, 64, 8)}


def test_an_acknowledgement_leaves_an_answer_that_is_on_its_way_to_its_seal(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process answers round 1 late, while this one acknowledges round 5."""
    late = open_place(place.folder)
    place.ask(5)
    head = head_of(place)

    def action(name: str) -> None:
        if name == "before-seal":
            acknowledge(head, place.ledger, place.outbox)

    monkeypatch.setattr(failpoints, "action", action)
    content = late.ask(1)
    assert late.ask(1) == content


def test_two_processes_that_answer_the_same_ask_are_charged_twice(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two answers with noise of their own leave; each has its RESERVE."""
    other = open_place(place.folder)
    answers: list[bytes] = []

    def action(name: str) -> None:
        if name == "after-reserve" and not answers:
            answers.append(b"")
            answers.append(other.ask())

    monkeypatch.setattr(failpoints, "action", action)
    content = place.ask()
    assert content != answers[1]
    assert [row["attempt"] for row in rows_of(place, "reserve")] == [1, 2]
    assert replay(place.rows()).reserved == {"study": (2, 0)}
    assert restarted(place).ask() in (content, answers[1])


def test_a_forked_child_s_ledger_is_its_own(tmp_path: Path) -> None:
    """A child opens the file after the fork: both processes' rows are one chain."""
    ledger = make_ledger(tmp_path / "ledger.db")
    ledger.open_study("study", PLAN, CAP)
    child = os.fork()
    if child == 0:
        try:
            make_ledger(tmp_path / "ledger.db").reserve(key(1), (1, 0), CAP, {"input_sha256": INPUT, "run_sha256": RUN})
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ledger.reserve(key(2), (1, 0), CAP, {"input_sha256": INPUT, "run_sha256": RUN})
    assert replay(read_rows(tmp_path / "ledger.db")).problems == []
