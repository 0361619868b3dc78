"""`client doctor` and `client check` say whether a run fits this machine, on faked memory."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.installations import write_site

from confide.client.answers.proposed_runs import keep_offer
from confide.client.commands import doctor
from confide.client.steward.approval import review
from confide.common.config.run import RunConfig, lock
from confide.common.model import base_models, memory
from confide.common.model.base_models import hash_model
from confide.common.model.memory import Memory

MakeRun = Callable[..., RunConfig]
GIB = 2**30


@pytest.fixture
def site(tmp_path: Path, make_run: MakeRun, base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site with a run on offer, whose base model is here."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(base_models.importlib.metadata, "distributions", lambda: iter(()))
    shutil.copytree(base_folder, tmp_path / "models" / base_folder.name)
    keep_offer(tmp_path / "state" / "offers", _run(make_run, base_folder))
    return write_site(tmp_path)


def _run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    return lock(make_run(local={"nominal_units": 20}), hash_model(base_folder))


def _finding(site: Path) -> doctor.Finding:
    [finding] = [finding for finding in doctor.examine(site) if finding.subject == "room on the device"]
    return finding


@pytest.mark.parametrize(
    ("free", "whole", "state", "words"),
    [
        (2 * GIB, 4 * GIB, "ok", "a run on offer takes about 0.0 GiB, cpu has 2.0 GiB free"),
        (1, 4 * GIB, "warning", "cpu has 0.0 GiB free; free some, unless it is this client that holds it"),
        (1, 1, "problem", "study test: base model "),
    ],
)
def test_the_doctor_compares_the_run_on_offer_with_the_memory(
    site: Path, free: int, whole: int, state: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "memory_of", lambda device: Memory(free, whole))
    found = _finding(site)
    assert found.state == state
    assert words in found.text
    assert "\n" not in found.text


def test_without_an_offer_or_its_base_the_doctor_waits(tmp_path: Path, site: Path, base_folder: Path) -> None:
    shutil.rmtree(tmp_path / "models" / base_folder.name)
    shutil.rmtree(tmp_path / "state" / "offers")
    found = _finding(site)
    assert (found.state, found.text) == ("ok", "is looked at once a run is offered whose base model is here")


def test_check_tells_that_a_run_does_not_fit_and_changes_no_answer(
    site: Path, make_run: MakeRun, base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an estimate: the client tries a step before it joins."""
    run = _run(make_run, base_folder)
    fits = review(run, site)
    monkeypatch.setattr(memory, "memory_of", lambda device: Memory(1, 1))
    does_not = review(run, site)
    assert fits.as_json()["does_not_fit"] is None
    assert "would not fit" not in fits.text()
    assert "  would not fit this machine: base model " in does_not.text()
    assert does_not.as_json()["does_not_fit"] in does_not.text()
    assert does_not.exit_code == fits.exit_code == 0


def test_check_leaves_a_base_that_is_not_here_to_the_doctor(site: Path, make_run: MakeRun, base_folder: Path) -> None:
    run = lock(make_run(local={"nominal_units": 20}, model={"base": "no_such_package"}), "cd" * 32)
    assert review(run, site).room is None
