"""Noised counts of an institution's own held-out share: the only way in which anything about it leaves."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.common.model.adapter import set_state
from confide.common.model.evaluation import predict
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.coins import CoinSource
from confide.common.privacy.noise import noised_cells
from confide.common.privacy.plan import PrivacyPlan
from confide.common.tensors import State

Units = list[list[dict[str, Any]]]


def validate(plan: PrivacyPlan, model: WarmModel, state: State, units: Units, coins: CoinSource) -> State:
    """Count how much of the validation share an adapter gets right and wrong, with noise.

    Guarantee: a unit weighs 1 in all, shared over its records, in two disjoint cells. So the counts have sensitivity
    1, and the result is one of the plan's ``validation_releases``.

    Returns:
        ``{"cells": (right, wrong)}``, float32, noised; may be negative.
    """
    set_state(model.module, state)
    return {"cells": noised_cells(count_cells(model, units), plan, coins)}


def count_cells(model: WarmModel, units: Units) -> NDArray[np.float64]:
    """Add up right and wrong, each unit with weight 1, shape ``(2,)``: private."""
    cells = np.zeros(2)
    for unit in units:
        for record in unit:
            right = _rightness(model, record)
            cells += np.array([right, 1 - right]) / len(unit)
    return cells


def _rightness(model: WarmModel, record: dict[str, Any]) -> float:
    """Return how right a record is predicted, in [0, 1]; alone, for in a batch other rows would decide its last bits.

    Weights that a server chooses may give no number at all. Then it counts as wrong, and the sensitivity stays 1.
    """
    [prediction] = predict(model, [record])
    right = model.task.rightness(model.task.truth(record), prediction)
    return right if 0.0 <= right <= 1.0 else 0.0
