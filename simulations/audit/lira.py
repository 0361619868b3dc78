"""The likelihood-ratio attack on membership (Carlini and others 2022, arXiv 2112.03570): pure functions of losses."""

import numpy as np
from numpy.typing import NDArray

from confide.simulations.audit.observers import Inside

Losses = NDArray[np.float64]
_LEAST = 1e-6  # of a loss in float32: below it nothing is told apart
_LEAST_SPREAD = 1e-3  # of a unit's score over runs: a spread of zero would be certainty


def scaled(losses: Losses, *, likely: bool) -> Losses:
    """Return scores that are nearly normal over runs of the same sort (section IV-C of the paper).

    Args:
        losses: any shape.
        likely: True if a loss is minus the logarithm of a probability p: the score is then log(p / (1 - p)).
            Otherwise it is minus the loss.

    >>> scaled(-np.log(np.array([0.25, 0.9])), likely=True).round(3).tolist()
    [-1.099, 2.197]
    """
    return -np.log(np.expm1(np.clip(losses, _LEAST, 50.0))) if likely else -losses


def offline(seen_U: Losses, shadows_SU: Losses, inside_SU: Inside) -> Losses:
    """Return by how many standard deviations each unit scores higher than in shadow runs that it was not in."""
    mean_U, spread = _fitted(shadows_SU, ~inside_SU)
    return np.asarray((seen_U - mean_U) / spread)


def online(seen_U: Losses, shadows_SU: Losses, inside_SU: Inside) -> Losses:
    """Return the logarithm of how much likelier each unit's score is among shadow runs with it than without it.

    Args:
        seen_U: scores of the units in the run that is attacked.
        shadows_SU: scores in shadow runs; each unit must be in some of them, and out of others.
        inside_SU: who was in.

    Raises:
        ValueError: a unit was in all shadow runs or in none, so that nothing can be compared.
    """
    gains = []
    for chosen_SU in (inside_SU, ~inside_SU):
        mean_U, spread = _fitted(shadows_SU, chosen_SU)
        gains.append(-(((seen_U - mean_U) / spread) ** 2) / 2 - np.log(spread))
    return np.asarray(gains[0] - gains[1])


def _fitted(shadows_SU: Losses, chosen_SU: Inside) -> tuple[Losses, float]:
    """Return a mean for each unit, and one spread for all: of few runs a unit's own spread is not to be had."""
    counts_U = chosen_SU.sum(axis=0)
    if not counts_U.all():
        raise ValueError("a unit was in all shadow runs or in none: their halves must differ")
    mean_U = np.where(chosen_SU, shadows_SU, 0.0).sum(axis=0) / counts_U
    squares = np.where(chosen_SU, (shadows_SU - mean_U) ** 2, 0.0).sum()
    freedom = max(1, int(chosen_SU.sum()) - len(counts_U))
    return mean_U, max(_LEAST_SPREAD, float(np.sqrt(squares / freedom)))
