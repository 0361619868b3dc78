"""The likelihood-ratio attack: pure functions, on scores whose law is known."""

import numpy as np
import pytest
from support.kinds import SETTINGS, task_of

from confide.simulations.audit.lira import offline, online, scaled
from confide.simulations.audit.membership import hits_at

RATE = np.array([0.05])


def _runs(gain: float, count: int = 16, units: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores of a run and of shadow runs: each unit has a height of its own, and a little more where it is in."""
    chance = np.random.default_rng(0)
    heights_U = 5 * chance.standard_normal(units)
    half = chance.random((count // 2, units)) < 0.5
    inside_SU = np.concatenate([half, ~half])
    seen, shadows = chance.standard_normal(units), chance.standard_normal((count, units))
    members = chance.random(units) < 0.5
    return heights_U + seen + gain * members, heights_U + shadows + gain * inside_SU, inside_SU, members


def test_a_unit_is_compared_with_itself_where_its_loss_alone_tells_nothing() -> None:
    seen, shadows, inside, members = _runs(gain=3.0)
    for attack in (online, offline):
        score = attack(seen, shadows, inside)
        assert hits_at(score[members], score[~members], RATE) > 0.7
    assert hits_at(seen[members], seen[~members], RATE) < 0.2


def test_where_membership_changes_nothing_nothing_is_found() -> None:
    seen, shadows, inside, members = _runs(gain=0.0)
    score = online(seen, shadows, inside)
    assert hits_at(score[members], score[~members], RATE) < 0.15


def test_halves_that_are_used_again_are_refused() -> None:
    seen, shadows, inside, _ = _runs(gain=1.0)
    inside[:] = inside[0]
    with pytest.raises(ValueError, match="their halves must differ"):
        online(seen, shadows, inside)


def test_equal_shadow_runs_give_no_certainty_and_no_division_by_zero() -> None:
    inside = np.array([[True], [False]])
    assert np.isfinite(online(np.array([2.0]), np.array([[1.0], [1.0]]), inside)).all()


def test_losses_of_exactly_zero_and_without_a_bound_have_a_score() -> None:
    assert np.isfinite(scaled(np.array([0.0, 1e9]), likely=True)).all()
    assert scaled(np.array([0.0, 4.0]), likely=False).tolist() == [0.0, -4.0]


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_losses_of_all_kinds_but_scores_are_logarithms_of_probabilities(kind: str) -> None:
    assert task_of(kind).likely == (SETTINGS[kind]["kind"] != "scoring")
