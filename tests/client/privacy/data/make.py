"""Makes an old ledger: `PYTHONPATH=tests python tests/client/data/make.py tests/client/data/ledger-YEAR-MONTH`.

Run it once, with the code whose ledgers are to stay readable, before the form changes: what it has made is never made
again. Salts and times are seeded. No noise is drawn: `confide verify` rejects that of a test.
"""

import itertools
import random
import secrets
import sys
import time
from pathlib import Path

from support.installations import write_site
from support.ledgers import CAP, INPUT, LINEAGE, PLAN, RUN

from confide.client.data.dataset_claims import Names
from confide.client.privacy.account import AnswerKey, AnswerKind, Reservation
from confide.client.privacy.release import AnswerRequest, acknowledge, release
from confide.client.site.installation import Site, open_site
from confide.common.privacy.filter import Cap

STUDY, RAISED = "reviews", Cap(9.0, CAP.max_delta)
_BEGAN = 1_795_000_000  # 2026-11-18


def spend(site: Site, cap: Cap, what: AnswerKind, number: int) -> bytes:
    """One answer of the study; its payload says what it is."""

    def make(reservation: Reservation, prepared: None) -> bytes:
        return f"{what} {number}, reserved as row {reservation.number}".encode()

    def agree() -> tuple[Cap, None]:
        site.ledger.open_study(STUDY, PLAN, cap)
        return cap, None

    price = (1, 0) if what == "update" else (0, 1)
    request = AnswerRequest(AnswerKey(STUDY, LINEAGE, what, number), *price, INPUT, RUN)
    return release(request, site.ledger, site.outbox, agree, make)


def make_ledger(folder: Path) -> None:
    """Three rounds, one release of counts, a cap that was raised in between; the last answer was not acknowledged."""
    seeded, seconds = random.Random(0), itertools.count(_BEGAN)  # noqa: S311 - salts of nobody's ledger
    secrets.token_hex = lambda size=32: seeded.randbytes(size).hex()
    time.time = lambda: float(next(seconds))
    path, state = write_site(folder, []), folder / "state"
    state.mkdir()
    for name in ("secret.key", "identity.key"):  # the first row commits to the one
        (state / name).write_bytes(bytes(32))
    site = open_site(path)
    assert site.data.claims.claim_all("people", {Names((bytes(32),), (bytes(32),))})
    site.ledger.approve(STUDY, RUN, PLAN, CAP)
    for what, number, cap in (("update", 1, CAP), ("validation", 1, CAP), ("update", 2, RAISED)):
        spend(site, cap, what, number)
        acknowledge(list(site.ledger.account().reservations.values())[-1].hash, site.ledger, site.outbox)
    spend(site, RAISED, "update", 3)


def strip(folder: Path) -> None:
    """Leave ledger, people, outbox and witnesses: all else is written anew by whoever opens."""
    state, outbox = folder / "state", folder / "state" / "outbox"
    mine = [folder / "site.toml", folder / "notes.jsonl", *(state / name for name in ("secret.key", "identity.key"))]
    for path in [*mine, *outbox.rglob(".lock")]:
        path.unlink()


if __name__ == "__main__":
    make_ledger(Path(sys.argv[1]))
    strip(Path(sys.argv[1]))
