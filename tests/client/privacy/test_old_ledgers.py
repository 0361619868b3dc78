"""A ledger outlives every version of the code: what an earlier one wrote is read, counted, verified and continued."""

import shutil
from pathlib import Path

import pytest
from support.installations import write_site

from confide.client.data.dataset_claims import Names
from confide.client.privacy.account import AnswerKey, Reservation
from confide.client.privacy.release import AnswerRequest, release
from confide.client.site.commitments import commit_to_secret
from confide.client.site.installation import Site, open_site
from confide.client.steward.ledger_report import export_lines
from confide.common.errors import LedgerError
from confide.common.privacy.filter import Cap
from confide.common.privacy.plan import PrivacyPlan
from confide.common.verify.command import verify

DATA = Path(__file__).with_name("data")
# As data/make.py had them then; what tests use now may change.
STUDY, LINEAGE, RAISED = "reviews", "ab" * 16, Cap(9.0, 1e-5)
PLAN = PrivacyPlan("record", 0.2, 6, 40, 1.0, "automatic", 2.0, 1e-5, validation_releases=2)
ROWS = "dataset approve open reserve seal ack reserve seal ack policy reserve seal ack reserve seal"


@pytest.fixture(params=["ledger-2026-11", "ledger-2026-11-28"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The site.toml of an institution with a copy of that ledger."""
    shutil.copytree(DATA / request.param, tmp_path, dirs_exist_ok=True)
    for name in ("secret.key", "identity.key"):
        (tmp_path / "state" / name).write_bytes(bytes(32))
    return write_site(tmp_path)


def _answer(site: Site, number: int) -> bytes:
    """The update of a round of the study, made anew where there is none that was sealed."""

    def agree() -> tuple[Cap, None]:
        site.ledger.open_study(STUDY, PLAN, RAISED)
        return RAISED, None

    def make(reservation: Reservation, prepared: None) -> bytes:
        return b"made anew"

    request = AnswerRequest(AnswerKey(STUDY, LINEAGE, "update", number), 1, 0, "1" * 64, "2" * 64)
    return release(request, site.ledger, site.outbox, agree, make)


def test_an_old_ledger_is_whole_and_counts_what_was_spent(path: Path) -> None:
    """Its chain, what its witnesses saw, and what it adds up to.

    Whoever changes the form of a ledger must keep this one readable, and adds another: data/make.py makes them.
    """
    site = open_site(path)
    assert [row["kind"] for row, _ in site.ledger.rows()] == ROWS.split()
    account = site.ledger.account()
    study = account.studies[STUDY]
    assert (study.plan, study.closed, account.cap) == (PLAN, False, RAISED)
    assert (study.reserved_steps, study.reserved_releases) == (3, 1)
    assert [each.acknowledged for each in account.reservations.values()] == [True, True, True, False]


def test_an_old_ledger_and_its_export_are_verified(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = tmp_path / "export.jsonl"
    export.write_text("".join(f"{line}\n" for line in export_lines(path)), encoding="utf-8")
    for place in (export, tmp_path / "state" / "ledger.db"):
        verify(place)
        assert "3 of 6 steps, 1 of 2 validation releases" in capsys.readouterr().out


def test_an_old_ledger_goes_on(path: Path) -> None:
    """What was sealed is sent as it is, at no charge; the next round is charged beside the others."""
    site = open_site(path)
    assert _answer(site, 3) == b"update 3, reserved as row 14"
    assert len(site.ledger.rows()) == len(ROWS.split())
    assert _answer(site, 4) == b"made anew"
    assert open_site(path).ledger.account().studies[STUDY].reserved_steps == 4


def test_an_old_ledger_gets_witnesses_of_its_secret_and_of_its_people(path: Path, tmp_path: Path) -> None:
    """Of the secret at the next opening, in its first row or beside it; of the people with the next row."""
    state, own = tmp_path / "state", commit_to_secret(bytes(32), "people")
    people, secret = state / "people.db", state / "secret.key"
    site = open_site(path)
    witnesses = [*(tmp_path / "state-anchor").iterdir(), state / "audit.jsonl"]
    first = site.ledger.account().first.get("secret_commitment")
    assert [own in file.read_text(encoding="utf-8") for file in witnesses] == [first is None] * 2
    assert first in (None, own)
    site.data.claims.claim("people", {Names((b"someone",), (b"someone",))})
    _answer(site, 4)
    secret.write_bytes(bytes(31) + b"1")
    with pytest.raises(LedgerError, match=r"secret\.key"):
        open_site(path)
    secret.write_bytes(bytes(32))
    claims = people.read_bytes()
    people.unlink()
    with pytest.raises(LedgerError, match=r"people\.db"):
        open_site(path)
    people.write_bytes(claims)
    assert open_site(path).data.claims.elsewhere("another", {Names((b"someone",), (b"someone",))})
