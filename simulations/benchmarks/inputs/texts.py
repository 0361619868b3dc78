"""The parts of a step's benchmarks: a model, texts of real lengths, and coins that always draw the same units."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.client.data.units import make_units
from confide.client.training.batches import BatchedUnits, batch_units, with_prefixes
from confide.client.training.trial import tried_shapes
from confide.common.config.run import RunConfig
from confide.common.config.toml import check
from confide.common.model.base_models import find_model
from confide.common.model.families import with_targets
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.privacy.coins import Coins
from confide.common.privacy.plan import NoPrivacy, PrivacyPlan
from confide.simulations.data.vader import read_vader

UNITS, PROBABILITY = 2000, 0.1
DRAWN = round(UNITS * PROBABILITY)
LABELS = ["negative", "positive"]
PRIVATE = PrivacyPlan("record", PROBABILITY, 40, UNITS, 1.0, "automatic", 1.3, 1e-5, 0.1)
PLAIN = NoPrivacy(PROBABILITY, 40, UNITS)


class FixedDraw:
    """Coins that draw every tenth unit in every step; the noise is real."""

    def __init__(self) -> None:
        self._coins = Coins.fresh()

    def mask_uniforms(self, count: int) -> NDArray[np.float64]:
        """Return uniforms that draw every tenth unit."""
        return np.where(np.arange(count) % round(1 / PROBABILITY) == 0, 1e-9, 1.0)

    def noise_uniforms(self, count: int) -> NDArray[np.float64]:
        """Return uniforms of real coins."""
        return self._coins.noise_uniforms(count)

    def noise_words(self, count: int) -> NDArray[np.uint64]:
        """Return words of real coins."""
        return self._coins.noise_words(count)


@dataclass(frozen=True)
class Bench:
    """A warm model and an institution's units on it."""

    run: RunConfig
    model: WarmModel
    units: BatchedUnits


def film_texts() -> list[dict[str, Any]]:
    """Return 2,000 remarks on films, 25 tokens on average."""
    return [row for row in read_vader() if row["institution"] == "films"][:UNITS]


def prepare(records: list[dict[str, Any]], adapter: dict[str, Any], base: str | None, folder: Path) -> Bench:
    """Make units of these records, with the prefix cache if the adapter's layers allow one.

    Args:
        records: texts with labels.
        adapter: as in run.toml: {"layers": "top:3"}.
        base: another base model than the default.
        folder: for the cache.
    """
    settings: dict[str, Any] = {"study": {"name": "benchmark"}, "task": {"labels": LABELS}, "adapter": adapter}
    if base:
        settings["model"] = {"base": base}
    run = check(RunConfig, settings, "benchmark")
    run = with_targets(run, find_model(run.model.base))
    model = warm_model(run)
    table = make_units(records, run.task, model.tokenizer, bytes(32))
    units = batch_units(table, model, tried_shapes(model, run.speed.tokens_per_micro_batch))
    return Bench(run, model, with_prefixes(units, model, folder))
