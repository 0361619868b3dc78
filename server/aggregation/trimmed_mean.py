"""Coordinate-wise trimmed mean (Yin et al., arXiv 1803.01498): the highest and the lowest fifth do not count.

It is the rule of Flower's FedTrimmedAvg at its default share. It ignores weights and keeps a round's updates in memory.
"""

import numpy as np
from scipy.stats import trim_mean

from confide.common.tensors import State
from confide.server.aggregation.median import add, init

TRIMMED_SHARE = 0.2  # at each end

__all__ = ["add", "init", "result"]


def result(state: tuple[State, ...]) -> State:
    """Return the mean of the remaining values of each coordinate as float32."""
    return {
        name: np.asarray(trim_mean(np.stack([update[name] for update in state]), TRIMMED_SHARE)).astype(np.float32)
        for name in state[0]
    }
