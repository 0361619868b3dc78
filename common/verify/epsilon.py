"""The accountant of `confide verify`: dp-accounting alone, on purpose without any code of ours."""

import logging
import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_HOPELESS = 1000.0  # Renyi epsilon beyond which PLD would take gigabytes: as good as infinite


@lru_cache(maxsize=256)
def recomputed(charges: tuple[tuple[Any, ...], ...], delta: float, order: int | None) -> float:
    """Return epsilon of charges (q, noise, noise of releases, steps, releases): by PLD, or by Renyi at an order."""
    from dp_accounting import NeighboringRelation, dp_event
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    logging.getLogger("absl").setLevel(logging.ERROR)
    relation, grid = NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-4 if len(charges) == 1 else 1e-3
    accountants = [RdpAccountant([order] if order else range(2, 257), relation)]  # first: it shows the cost of PLD
    accountants += [] if order else [PLDAccountant(relation, value_discretization_interval=grid)]
    try:
        with warnings.catch_warnings(action="ignore"):
            for accountant in accountants:
                for q, noise, release_noise, steps, releases in charges:
                    step = dp_event.PoissonSampledDpEvent(q, dp_event.GaussianDpEvent(noise))
                    for event, count in ((step, steps), (dp_event.GaussianDpEvent(release_noise), releases)):
                        if count:
                            accountant.compose(event, count)
                if not 0 <= (epsilon := float(accountant.get_epsilon(delta))) < _HOPELESS:
                    return math.inf
            return epsilon
    except (ArithmeticError, ValueError, MemoryError):
        return math.inf


def recompute(charges: Sequence[tuple[dict[str, Any], int, int]], delta: float, order: int | None) -> float:
    """Return epsilon of charges (plan, steps, releases), as `recomputed`; infinite if it cannot be computed."""
    names = ("sampling_probability", "noise_multiplier", "validation_noise_multiplier")
    charged = tuple((*(plan[name] for name in names), *counts) for plan, *counts in charges if any(counts))
    return recomputed(charged, delta, order) if charged else 0.0
