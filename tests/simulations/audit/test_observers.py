"""Scores and guesses of an attacker."""

import numpy as np
from support.toy import make_plan

from confide.simulations.audit.bounds import Tally
from confide.simulations.audit.observers import accused_above, learned, likelihood_ratio, spread, surest


def _trials(shift: float, count: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(0)
    inside = chance.random(count) < 0.5
    return chance.normal(size=count) + shift * inside, inside


def test_the_ratio_of_one_draw_is_that_of_two_densities() -> None:
    plan, seen = make_plan(sampling_probability=0.25, noise_multiplier=2.0), np.array([[-1.0, 0.5, 3.0]])
    without = np.exp(-(seen[0] ** 2) / 8)
    drawn = np.exp(-((seen[0] - 1) ** 2) / 8)
    assert np.allclose(likelihood_ratio(seen, plan, 1), np.log((0.75 * without + 0.25 * drawn) / without))


def test_one_who_learns_a_threshold_accuses_on_either_side() -> None:
    for side in (1, -1):
        scores, inside = _trials(3.0)
        tally = learned(side * scores, inside, lambda alarms: alarms)
        assert tally.hits / tally.members > 0.9
        assert tally.alarms / tally.outsiders < 0.1


def test_the_threshold_is_learnt_on_the_first_half_alone() -> None:
    scores, inside = _trials(3.0)
    inside[1000:] = np.random.default_rng(1).random(1000) < 0.5
    tally = learned(scores, inside, lambda alarms: alarms)
    assert tally.members + tally.outsiders == 1000
    assert abs(tally.hits / tally.members - tally.alarms / tally.outsiders) < 0.1


def test_equal_scores_are_accused_together() -> None:
    inside = np.arange(400) % 2 == 0
    tally = learned(np.zeros(400), inside, lambda alarms: alarms)
    assert tally in (Tally(0, 100, 0, 100), Tally(100, 100, 100, 100))
    assert accused_above(np.zeros(4), inside[:4], 0.0) == Tally(0, 2, 0, 2)


def test_the_surest_are_the_highest_and_the_lowest() -> None:
    inside = np.array([False] * 10 + [True] * 10)
    assert surest(np.arange(20.0), inside, 0.2) == (4, 4)
    assert surest(-np.arange(20.0), inside, 0.2) == (4, 0)


def test_noise_that_is_used_again_leaves_no_spread_without_the_canary() -> None:
    same = np.random.default_rng(0).normal(size=3)
    assert (spread(np.stack([same, same + np.array([0, 0, 1])])) > 0).tolist() == [False, False, True]
