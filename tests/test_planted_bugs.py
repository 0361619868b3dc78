"""Every planted bug of the step, of what leaves, of ledger and release makes a check fail.

The bugs are those of support/step_bugs.py and support/client_bugs.py. The checks are those of support/guarantees.py and
support/ledger_guarantees.py, which the tests named after the guarantee run on the product as it is. Bugs of training
and of validation counts are planted for every method, kind and family: test_planted_bugs_of_training.py.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from support import guarantees, ledger_guarantees
from support.client_bugs import CLIENT_BUGS, LEAVING_BUGS, RELEASE_BUGS
from support.step_bugs import COUNTING_BUGS, STEP_BUGS, TRAINING_BUGS

from confide.common.config.run import RunConfig, lock
from confide.common.errors import LedgerError
from confide.common.model.base_models import hash_model


@pytest.mark.parametrize("bug", STEP_BUGS)
def test_a_bug_in_the_step_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, check = STEP_BUGS[bug]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()


@pytest.fixture
def run(make_run: Callable[..., RunConfig], base_folder: Path) -> RunConfig:
    """Two rounds with validation counts, in which every unit is drawn."""
    local = {"sampling_probability": 1.0, "nominal_units": 20}
    run = make_run(local=local, federation={"num_rounds": 2}, evaluation={"validation_every": 1})
    return lock(run, hash_model(base_folder))


@pytest.mark.parametrize("bug", LEAVING_BUGS)
def test_a_bug_in_what_leaves_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch, run: RunConfig) -> None:
    plant, check = LEAVING_BUGS[bug]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(run)


@pytest.mark.parametrize("bug", RELEASE_BUGS)
def test_a_bug_in_ledger_or_release_is_caught(bug: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plant, check = RELEASE_BUGS[bug]
    plant(monkeypatch)
    with pytest.raises((AssertionError, LedgerError)):
        check(tmp_path)


@pytest.mark.parametrize("bug", CLIENT_BUGS)
def test_a_bug_in_the_client_is_caught(
    bug: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: RunConfig
) -> None:
    plant, check = CLIENT_BUGS[bug]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check(tmp_path, run)


def test_every_check_of_the_guarantee_fails_at_some_planted_bug() -> None:
    checks = {name for name in [*vars(guarantees), *vars(ledger_guarantees)] if name.startswith("check_")}
    bugs = [STEP_BUGS, TRAINING_BUGS, COUNTING_BUGS, LEAVING_BUGS, RELEASE_BUGS, CLIENT_BUGS]
    assert checks == {check.__name__ for group in bugs for _, check in group.values()}
