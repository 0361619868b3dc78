"""The release protocol: charged before computed, sealed before sent, sent again as it is."""

import hashlib
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.accounts import replay
from support.ledgers import ARROWS, CAP, INPUT, PLAN, RUN, Place, head_of, key, kinds, make_ledger, restarted, rows_of

from confide.client.privacy.account import Reservation
from confide.client.privacy.release import AnswerRequest, acknowledge, recover, release
from confide.common import failpoints
from confide.common.errors import BudgetError, ConfideError, LedgerError, PolicyError
from confide.common.privacy.filter import Cap

# Charged before it is computed


def test_the_charge_is_on_the_disk_before_anything_is_computed(place: Place) -> None:
    def make(reservation: Reservation, prepared: None) -> bytes:
        row, row_hash = place.rows()[-1]
        assert (row["kind"], row_hash) == ("reserve", reservation.hash)
        assert reservation.hash in next((place.folder / "anchor").iterdir()).read_text()
        assert reservation.hash in (place.folder / "state" / "audit.jsonl").read_text()
        place.made += 1
        return b"update"

    place.make = make  # type: ignore[method-assign]
    place.ask()
    assert place.made == 1


def test_the_seal_is_on_the_disk_before_the_answer_is_given_out(place: Place) -> None:
    content = place.ask()
    row = rows_of(place, "seal")[0]
    assert (row["sha256"], row["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
    [file] = (place.folder / "state" / "outbox").glob("*.answer")
    assert file.read_bytes() == content


def test_an_answer_passes_every_arrow_in_order(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[str] = []
    monkeypatch.setattr(failpoints, "action", passed.append)
    place.ask()
    assert [name for name in passed if name != "witness-written"] == ARROWS
    assert passed.count("witness-written") == len(place.rows())


def test_every_failpoint_of_the_client_is_named() -> None:
    sources = (Path(failpoints.__file__).parents[1] / "client").rglob("*.py")
    used = {part.split('"')[1] for file in sources for part in file.read_text().split("failpoint(")[1:]}
    assert used - {*failpoints.NAMES, *failpoints.OF_A_SUM} == set()


# A resend


def test_a_resend_is_identical_and_free(place: Place) -> None:
    first, before = place.ask(), place.rows()
    for other in (place, restarted(place)):
        assert other.ask() == first
    assert place.rows() == before
    assert place.made == 1


def test_a_resend_asks_no_policy_for_it_was_charged_already(place: Place) -> None:
    first = place.ask()
    place.ledger.close("study")
    place.ledger.retire()
    assert place.ask(cap=Cap(0.01, 1e-9)) == first


@pytest.mark.parametrize("change", [{"input_sha256": "9" * 64}, {"run_sha256": "9" * 64}])
def test_another_input_or_run_is_another_answer_with_its_own_charge(place: Place, change: dict[str, Any]) -> None:
    first = place.ask()
    other = place.ask(**change)
    assert other != first
    assert [row["attempt"] for row in rows_of(place, "reserve")] == [1, 2]
    assert (place.ask(), place.ask(**change)) == (first, other)
    with pytest.raises(PolicyError, match="retry"):
        place.ask(input_sha256="8" * 64)


@pytest.mark.parametrize("change", [b"", b"another update", None])
def test_a_sealed_file_that_was_changed_is_refused(place: Place, change: bytes | None) -> None:
    """Neither the changed bytes nor others in their place are ever sent."""
    place.ask()
    [file] = (place.folder / "state" / "outbox").glob("*.answer")
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change)
    for other in (place, restarted(place)):
        with pytest.raises(LedgerError, match="gone from the outbox, or was changed"):
            other.ask()
        assert other.made <= 1
    assert len(rows_of(place, "reserve")) == 1


# Errors and refusals


def test_an_error_in_the_computation_is_charged_and_leaves_nothing_to_send(place: Place) -> None:
    def fail(reservation: Reservation, prepared: None) -> bytes:
        raise RuntimeError("in mid-step")

    place.make = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        place.ask()
    assert [row["kind"] for row, _ in place.rows()] == ["dataset", "open", "reserve"]
    assert place.outbox.names() == []


@pytest.mark.parametrize("error", [PolicyError("no"), BudgetError("no"), ValueError("no")])
def test_a_refusal_charges_and_computes_nothing(place: Place, error: Exception) -> None:
    def disagree() -> tuple[Cap, None]:
        raise error

    place.ask(1)
    before = place.rows()
    with pytest.raises(type(error)):
        release(AnswerRequest(key(2), 1, 0, INPUT, RUN), place.ledger, place.outbox, disagree, place.make)
    assert (place.rows(), place.made) == (before, 1)


def test_a_budget_that_does_not_allow_it_charges_and_computes_nothing(place: Place) -> None:
    with pytest.raises(BudgetError):
        place.ask(1, Cap(0.5, 1e-5))
    assert (place.rows(), place.made, place.outbox.names()) == ([], 0, [])


def test_a_full_outbox_is_charged_and_sends_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*rest: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("confide.client.privacy.outbox.write_durably", full)
        with pytest.raises(ConfideError, match="nothing was sent"):
            place.ask()
    assert [row["kind"] for row, _ in place.rows()] == ["dataset", "open", "reserve"]
    assert place.ask()
    assert replay(place.rows()).attempts[(*vars(key()).values(),)] == [3, 4]


def test_a_full_ledger_at_the_seal_sends_nothing_and_is_tried_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = place.ledger._chain.append

    def full(kind: str, values: dict[str, Any]) -> int:
        if kind == "seal":
            raise sqlite3.OperationalError("database or disk is full")
        return append(kind, values)

    with monkeypatch.context() as context:
        context.setattr(place.ledger._chain, "append", full)
        with pytest.raises(ConfideError, match="cannot be used"):
            place.ask()
    [orphan] = (place.folder / "state" / "outbox").glob("*.answer")
    assert place.ask() != orphan.read_bytes()
    assert len(rows_of(place, "reserve")) == 2


def test_coins_of_a_test_are_named_in_the_ledger(place: Place) -> None:
    place.ask(1)
    place.ask(2, coins="test")
    assert [row["coins"] for row in rows_of(place, "reserve")] == ["os", "test"]


# Acknowledgement


def test_an_acknowledgement_is_a_row_once(place: Place) -> None:
    place.ask()
    for other in (place, restarted(place)):
        acknowledge(head_of(place), other.ledger, other.outbox)
    assert [row["reserve"] for row in rows_of(place, "ack")] == [3]


def test_acknowledged_answers_are_kept_for_three_rounds(place: Place) -> None:
    answers = []
    for number in range(1, 6):
        answers.append(place.ask(number))
        acknowledge(head_of(place), place.ledger, place.outbox)
    assert len(place.outbox.names()) == 3
    assert [place.ask(number) for number in (3, 4, 5)] == answers[2:]
    with pytest.raises(LedgerError, match="gone"):
        place.ask(2)
    assert place.made == 5


def test_answers_of_other_runs_stay(place: Place) -> None:
    other = replace(key(1), lineage="cd" * 16)
    first = place.ask(1, key=other)
    for number in range(1, 6):
        place.ask(number)
        acknowledge(head_of(place), place.ledger, place.outbox)
    assert place.ask(1, key=other) == first


def test_an_acknowledgement_of_an_unknown_update_shows_an_old_ledger(place: Place) -> None:
    place.ask()
    with pytest.raises(LedgerError, match="older than what was sent"):
        acknowledge("f" * 64, place.ledger, place.outbox)


# Recovery


def test_recovery_changes_nothing_that_is_sealed(place: Place) -> None:
    first = place.ask()
    for _ in range(3):
        recover(place.ledger, place.outbox)
    assert place.ask() == first


def test_an_answer_that_the_ledger_does_not_know_shows_an_old_ledger(place: Place) -> None:
    place.outbox.put("f" * 64 + ".answer", b"1")
    with pytest.raises(LedgerError, match="older than the outbox"):
        restarted(place)


def test_an_acknowledgement_of_another_dataset_of_the_same_file_is_passed_over(place: Place) -> None:
    """The same key signs for both."""
    place.ask()
    other = make_ledger(place.folder / "state" / "ledger.db", dataset="others")
    other.open_study("study", PLAN, CAP)
    acknowledge(head_of(place), other, place.outbox)
    assert kinds(other) == ["dataset", "open"]
    with pytest.raises(LedgerError):
        acknowledge("f" * 64, other, place.outbox)
