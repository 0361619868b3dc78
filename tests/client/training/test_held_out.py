"""Each round notes how the records are divided, and a later test keeps to the smallest held-out share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.installations import Asking, kinds, write_site

from confide.client.site.installation import Site, open_site
from confide.client.training.held_out import held_out_fraction, in_rounds
from confide.common.config.run import RunConfig, lock
from confide.common.errors import ConfideError, InputError
from confide.common.model.base_models import hash_model

MakeRun = Callable[..., RunConfig]


def _open(path: Path, fraction: float) -> Site:
    write_site(path, dataset={"validation_fraction": fraction}, compute={"tokens_per_micro_batch": 64})
    return open_site(path / "site.toml")


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    return lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))


def _known(site: Site, run: RunConfig) -> tuple[float, bool]:
    assert site.splits is not None
    return held_out_fraction(site.splits, run, site.config.dataset)


def test_a_round_notes_it_and_an_offer_does_not(tmp_path: Path, run: RunConfig) -> None:
    sites = [_open(tmp_path, 0.2)]
    asking = Asking(run, lambda: sites[-1])
    assert kinds(asking.offer()) == ["accepted"]
    assert _known(sites[-1], run) == (0.2, False)
    assert kinds(asking.update()) == ["update"]
    assert _known(sites[-1], run) == (0.2, True)
    sites.append(_open(tmp_path, 0.1))
    assert kinds(asking.update(2)) == ["update"]
    sites.append(_open(tmp_path, 0.4))
    assert kinds(asking.update(3)) == ["update"]
    assert _known(sites[-1], run) == (0.1, True)
    other = sites[-1].config.dataset.model_copy(update={"max_chars": 5})
    with pytest.raises(InputError, match=r"dataset.max_chars = 5, but it was 20000 .*; put the old value back"):
        held_out_fraction(tmp_path / "state" / "splits", run, other)


def test_a_round_that_joins_its_run_notes_it_too(tmp_path: Path, run: RunConfig) -> None:
    """A server need not send an offer."""
    site = _open(tmp_path, 0.2)
    assert kinds(Asking(run, lambda: site).update()) == ["update"]
    assert _known(site, run) == (0.2, True)


def test_a_damaged_note_is_named_with_its_remedy(tmp_path: Path, run: RunConfig) -> None:
    site = _open(tmp_path, 0.2)
    note = tmp_path / "state" / "splits" / f"{in_rounds(run)}.json"
    note.parent.mkdir()
    for content in ("{", "[1]", '[{"unit": "record"}]'):
        note.write_text(content, encoding="utf-8")
        with pytest.raises(ConfideError, match="not a note of how records were divided; delete it"):
            _known(site, run)
