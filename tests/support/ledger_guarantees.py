"""The checks behind the tests of ledger and release, as plain functions; see `support.guarantees`.

Each takes an empty folder; those of a whole client take a locked run too.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
from safetensors.numpy import load
from support.accounts import Spending, filter_epsilon, replay
from support.installations import Asking, kinds, update_of, write_site
from support.ledgers import CAP, INPUT, OTHER, RUN, Crash, Place, key, open_place, read_rows, write_rows
from support.sites import flatten

from confide.client.privacy import release as release_module
from confide.client.privacy.account import Reservation
from confide.client.site.installation import open_site
from confide.common import failpoints
from confide.common.config.run import RunConfig
from confide.common.errors import BudgetError, ConfideError, LedgerError, PolicyError
from confide.common.privacy.filter import Cap
from confide.common.protocol.answers import Update


@contextmanager
def crash_at(where: str) -> Iterator[None]:
    """End what runs inside at a failpoint; an error of ours is a failed check."""

    def action(name: str) -> None:
        if name == where:
            raise Crash

    with mock.patch.object(failpoints, "action", action):
        try:
            yield
        except Crash:
            return
    raise AssertionError(f"{where} was never reached")


def refused(act: Callable[[], object], *errors: type[ConfideError]) -> None:
    try:
        act()
    except errors:
        return
    raise AssertionError("it was not refused")


def answer(place: Place, number: int = 1, cap: Cap = CAP) -> bytes:
    """One round by the product's release, as it is at the time of the call."""
    request = release_module.AnswerRequest(key(number), 1, 0, INPUT, RUN)
    return release_module.release(request, place.ledger, place.outbox, lambda: (cap, None), place.make)


def begin(folder: Path, cap: Cap = CAP) -> Place:
    """A place with a study of four steps."""
    place = open_place(folder)
    place.ledger.open_study("study", OTHER, cap)
    return place


# The ledger


def check_a_crash_refunds_nothing(folder: Path) -> None:
    """Crashes, restarts, CLOSE: what was reserved stays so, and the allotment ends where it ended."""
    place = begin(folder)
    for _ in range(2):
        with crash_at("after-reserve"):
            answer(place)
        place = open_place(folder)
    assert place.ledger.account().reserved()["study"].num_steps == 2, "a refund"
    answer(place, 2), answer(place, 3)
    refused(lambda: answer(place, 4), BudgetError)
    place.ledger.close("study")
    assert open_place(folder).ledger.account().reserved()["study"].num_steps == 4, "a refund"
    assert replay(place.rows()).problems == []


def check_a_round_has_one_retry_at_most(folder: Path) -> None:
    place = begin(folder)
    for _ in range(2):
        with crash_at("before-seal"):
            answer(place)
        place = open_place(folder)
    refused(lambda: answer(place), PolicyError)


def check_a_lowered_cap_holds_from_the_next_charge(folder: Path) -> None:
    place = begin(folder)
    lower = Cap(filter_epsilon([Spending(1.0, 4.0, 2)], 1e-5, place.ledger.account().first["order"]) + 1e-4, 1e-5)
    answer(place, 1), answer(place, 2, lower)
    refused(lambda: answer(place, 3, lower), BudgetError)


def check_an_edited_row_is_refused(folder: Path) -> None:
    place = begin(folder)
    answer(place)
    path, rows = folder / "state" / "ledger.db", place.rows()
    cheaper = [({**row, "steps": 0} if row["kind"] == "reserve" else row, row_hash) for row, row_hash in rows]
    write_rows(path, cheaper)
    refused(lambda: open_place(folder), LedgerError)


def check_an_old_ledger_is_refused(folder: Path) -> None:
    """The answers were deleted with it, so that anchor and audit log are the only witnesses."""
    place = begin(folder)
    old = place.rows()
    answer(place)
    write_rows(folder / "state" / "ledger.db", old)
    for name in place.outbox.names():
        place.outbox.delete(name)
    refused(lambda: open_place(folder), LedgerError)


# The release protocol


def check_the_charge_comes_before_the_computation(folder: Path) -> None:
    place, charged = begin(folder), list[str]()

    def make(reservation: Reservation, prepared: None) -> bytes:
        charged.extend(
            row_hash for row, row_hash in read_rows(folder / "state" / "ledger.db") if row["kind"] == "reserve"
        )
        return b"update"

    place.make = make  # type: ignore[method-assign]
    answer(place)
    assert len(charged) == 1, "nothing was charged yet when it was computed"


def check_a_resend_is_identical_and_free(folder: Path) -> None:
    place = begin(folder)
    first, before = answer(place), place.rows()
    for again in (place, open_place(folder)):
        assert answer(again) == first, "another answer than before"
    assert place.rows() == before, "a resend was charged"


def check_a_sealed_answer_is_never_lost(folder: Path) -> None:
    """Wherever a process ends: what has a SEAL is there, and is what is sent."""
    for number, where in enumerate(("outbox-written", "outbox-renamed", "before-seal", "after-seal")):
        place = begin(folder / str(number))
        with crash_at(where):
            answer(place)
        sealed = [row["sha256"] for row, _ in place.rows() if row["kind"] == "seal"]
        content = answer(open_place(place.folder))
        assert not sealed or hashlib.sha256(content).hexdigest() == sealed[0]


def check_an_answer_without_a_seal_is_never_sent(folder: Path) -> None:
    """Neither after a restart nor without one."""
    for restart in (True, False):
        place = begin(folder / str(restart))
        with crash_at("before-seal"):
            answer(place)
        orphan = place.outbox.get(place.outbox.names()[0])
        assert answer(open_place(place.folder) if restart else place) != orphan, "an answer without a SEAL was sent"
        assert place.made == 1 + (not restart)


# A whole client


def check_no_server_lowers_the_noise_in_mid_study(folder: Path, run: RunConfig) -> None:
    """The policy would allow both runs; the ledger has pinned the first."""
    site = open_site(write_site(folder))
    asking = Asking(run, lambda: site)
    assert kinds(asking.update(1)) == ["update"]
    noise = run.privacy.noise_multiplier
    assert noise
    for change in ({"noise_multiplier": noise / 2}, {"noise_multiplier": noise * 2}, {"clip_norm": 2.0}):
        asking.run = run.model_copy(update={"privacy": run.privacy.model_copy(update=change)})
        assert kinds(asking.update(2)) == ["declined"], f"answered with {change}"
    asking.run = run
    assert kinds(asking.update(2)) == ["update"]


def check_a_retry_draws_everything_anew(folder: Path, run: RunConfig) -> None:
    """The first attempt, which was never sent, differs from the second by as much as noise does.

    Single numbers may be equal: noise lies on a grid of some 10^6 points.
    """
    path = write_site(folder)
    with crash_at("before-seal"):
        Asking(run, lambda: open_site(path)).update()
    [orphan] = (folder / "state" / "outbox").rglob("*.answer")
    first = Update.from_bytes(orphan.read_bytes())
    site = open_site(path)
    second = update_of(Asking(run, lambda: site).update())
    # Sorted: safetensors gives names back in any order.
    one, other = (flatten(dict(sorted(load(update.payload).items()))) for update in (first, second))
    assert np.median(np.abs(one - other)) > 0.1 * np.median(np.abs(one)), "the retry drew the same coins"
