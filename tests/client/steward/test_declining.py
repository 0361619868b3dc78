"""A person's no to a run holds whatever the policy says, and is refused where it would come too late."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from support.installations import Asking, kinds, write_site

from confide.client.answers.agreement import agree
from confide.client.answers.proposed_runs import keep_offer, note_decline, read_offers
from confide.client.site.installation import open_site
from confide.client.steward.approval import approve_run
from confide.client.steward.ledger_report import close_study
from confide.client.steward.offers import decline_run
from confide.common.config.run import RunConfig, lock
from confide.common.errors import InputError, PolicyError
from confide.common.model.base_models import hash_model


@pytest.fixture
def run(make_run: Callable[..., RunConfig], base_folder: Path) -> RunConfig:
    return lock(make_run(local={"nominal_units": 20}, federation={"num_rounds": 2}), hash_model(base_folder))


@pytest.fixture
def path(tmp_path: Path, run: RunConfig) -> Path:
    """A site where nobody has to approve, at which a run was offered."""
    path = write_site(tmp_path, policy={"require_approval": False})
    keep_offer(open_site(path).offers, run)  # type: ignore[arg-type]
    return path


def test_a_declined_run_is_refused_even_where_no_approval_is_needed(path: Path, run: RunConfig) -> None:
    assert "declined" in decline_run(path, run)
    asking, site = Asking(run, partial(open_site, path)), open_site(path)
    answers = [asking.offer(), asking.send(asking.ask(1), "query.rehearse"), asking.update(1), asking.counts(1)]
    assert [kinds(answer) for answer in answers] == [["declined"]] * 4
    with pytest.raises(PolicyError, match="was declined here"):
        agree(run, site, "ab" * 16)  # as an offer, a rehearsal, a round and a sum do
    assert site.ledger.account().studies == {}
    approve_run(run, "test", path)
    assert kinds(asking.offer()) == ["accepted"], "an approval takes the no back"


def test_an_approval_counts_more_than_a_no_that_was_left_behind(path: Path, run: RunConfig) -> None:
    approve_run(run, "test", path)
    note_decline(open_site(path).offers, run)  # type: ignore[arg-type]  # as if a crash had kept it
    assert kinds(Asking(run, partial(open_site, path)).offer()) == ["accepted"]


def test_a_run_whose_study_is_open_cannot_be_declined(path: Path, run: RunConfig) -> None:
    asking = Asking(run, partial(open_site, path))
    assert kinds(asking.offer()) == ["accepted"]
    for _ in range(2):
        with pytest.raises(InputError, match=r"`confide client ledger close test`.*`confide client pause`") as refused:
            decline_run(path, run)
        assert "\n" not in str(refused.value)
        assert kinds(asking.update(1)) == ["update"], "nothing was noted"
    other = run.model_copy(update={"study": run.study.model_copy(update={"seed": 8})})
    assert "declined" in decline_run(path, other), "another run of the study has not begun"
    assert len(read_offers(open_site(path).offers)) == 1  # type: ignore[arg-type]
    close_study(path, "test")
    assert "declined" in decline_run(path, run)


@pytest.mark.parametrize("moment", ["stat", "read_bytes"])
def test_an_offer_that_vanishes_while_it_is_read_is_no_error(
    path: Path, run: RunConfig, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Another process makes room for a newer one."""
    folder, real = open_site(path).offers, getattr(Path, moment)
    assert folder
    other = run.model_copy(update={"study": run.study.model_copy(update={"seed": 8})})
    keep_offer(folder, other)

    def vanished(file: Path, **more: bool) -> object:
        if file.stem == other.sha256():
            raise FileNotFoundError(file)
        return real(file, **more)

    monkeypatch.setattr(Path, moment, vanished)
    assert [each.sha256() for each in read_offers(folder)] == [run.sha256()]
    monkeypatch.undo()
    (folder / f"{other.sha256()}.json").write_text("{")
    with pytest.raises(InputError, match="not an offered run"):
        read_offers(folder)
