"""The audit finds planted bugs and lets the right code pass, through the code that clients run."""

import itertools

import numpy as np
import pytest
from support.audits import FOUND, FOUND_IN_SUMS, NOT_FOUND, ONE_MASK_A_ROUND, RARE, run_to_audit, summed_run
from support.coins import TestCoins
from support.planting import plant

from confide.client.training.local_steps import share, train
from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.common.privacy import noise
from confide.simulations.audit import mechanism, rounds
from confide.simulations.audit.mechanism import audit_mechanism
from confide.simulations.audit.verdicts import Audit, Effort

SMALL, WHOLE = Effort(canaries=800, lone=20), Effort()


@pytest.fixture(scope="module")
def run() -> RunConfig:
    return run_to_audit(federation={"num_rounds": 2}, local={"steps": 2})


@pytest.fixture(scope="module")
def sums() -> RunConfig:
    return summed_run()


@pytest.fixture(scope="module")
def short_sums() -> RunConfig:
    """Two rounds in which the noise of the sum alone is fixed."""
    return summed_run(federation={"num_rounds": 2}, privacy={"target_epsilon_if_broken": None})


def _audit(run: RunConfig, effort: Effort) -> Audit:
    seeds = itertools.count()
    return audit_mechanism(run, effort, lambda: TestCoins(next(seeds)), np.random.default_rng(0))


def test_the_audit_runs_what_clients_run() -> None:
    assert (rounds.train, rounds.share) == (train, share)


def test_the_right_code_passes_and_the_audit_has_power(run: RunConfig) -> None:
    audit = _audit(run, Effort(canaries=2000, lone=20))
    [view] = audit.views
    assert audit.holds
    assert 0 < view.bound <= view.stated == pytest.approx(3.0, abs=1e-3)
    assert (audit.rounds, audit.steps) == (2, 4)


def test_half_of_the_noise_is_found(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, noise, "values + stddev *", "values + stddev / 2 *")
    FOUND["half noise"](monkeypatch)  # a quarter in all: found with few canaries
    assert not _audit(run, SMALL).holds


@pytest.mark.waits
def test_a_sum_is_seen_by_three_observers_and_too_little_noise_found(
    short_sums: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    FOUND_IN_SUMS["the sum's noise divided by its members"](monkeypatch)
    views = _audit(short_sums, SMALL).views
    assert [view.holds for view in views] == [False, False, False]
    assert views[0].stated < views[1].stated < views[2].stated


def test_a_run_without_privacy_has_nothing_to_audit() -> None:
    with pytest.raises(InputError, match="states no epsilon"):
        _audit(run_to_audit(privacy={"unit": "none"}), SMALL)


@pytest.mark.waits
def test_the_right_code_passes_whole() -> None:
    [view] = _audit(run_to_audit(), WHOLE).views
    assert 0.8 <= view.bound <= view.stated
    assert all(view.holds for view in _audit(summed_run(), WHOLE).views)


@pytest.mark.waits
@pytest.mark.parametrize("bug", FOUND)
def test_a_planted_bug_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FOUND[bug](monkeypatch)
    assert not _audit(run_to_audit(), WHOLE).holds


def test_a_run_of_ever_so_many_steps_a_round_holds_no_audit_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mechanism, "MOST_STEPS", 3)
    audit = audit_mechanism(run_to_audit(federation={"num_rounds": 2}, local={"steps": 1000}), Effort(40, 8, 0.9))
    assert (audit.rounds, audit.steps) == (1, 3)


@pytest.mark.waits
def test_one_draw_for_all_steps_of_a_round_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_to_audit(**RARE)
    assert _audit(run, WHOLE).holds
    ONE_MASK_A_ROUND(monkeypatch)
    assert not _audit(run, WHOLE).holds


@pytest.mark.waits
@pytest.mark.parametrize("bug", FOUND_IN_SUMS)
def test_a_planted_bug_in_a_sum_is_found(bug: str, monkeypatch: pytest.MonkeyPatch, sums: RunConfig) -> None:
    FOUND_IN_SUMS[bug](monkeypatch)
    assert not _audit(sums, WHOLE).holds


@pytest.mark.waits
@pytest.mark.parametrize("bug", NOT_FOUND)
def test_what_docs_say_cannot_be_found_is_not_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    NOT_FOUND[bug](monkeypatch)
    assert _audit(run_to_audit(), WHOLE).holds
