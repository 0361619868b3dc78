"""What privacy costs in time: one private step against the same step without, paired, on the same batch and machine.

    python simulations/benchmarks/step.py [--pairs 15] [--json]

Both take the same units through the same warm model: a fixed draw replaces sampling, so that the pair differs in
per-example gradients, clip and noise alone. Prints medians over pairs; `private_over_plain` is the median of ratios.
"""

import argparse
import json
import statistics
import time

import numpy as np
from numpy.typing import NDArray

from confide.client.batches import BatchedUnits, batch_units
from confide.client.training import LocalWork, train
from confide.client.units import make_units
from confide.common.adapter import get_state
from confide.common.configuration import check
from confide.common.privacy.coins import Coins
from confide.common.privacy.noise import standard_normals
from confide.common.privacy.plan import NoPrivacy, PrivacyPlan
from confide.common.run_config import RunConfig
from confide.common.warm_model import WarmModel, warm_model
from confide.simulations.texts import read_vader

UNITS, PROBABILITY = 2000, 0.1


class FixedDraw:
    """Coins that draw the same tenth of the units in every step; the noise is real."""

    def __init__(self) -> None:
        self._coins = Coins.fresh()

    def mask_uniforms(self, count: int) -> NDArray[np.float64]:
        """Every tenth unit is in."""
        return np.where(np.arange(count) % 10 == 0, 0.01, 1.0)

    def noise_uniforms(self, count: int) -> NDArray[np.float64]:
        """Real coins."""
        return self._coins.noise_uniforms(count)


def measure(pairs: int) -> dict[str, float]:
    """Medians over ``pairs`` of private and plain steps, after two of each to warm up."""
    settings = {"study": {"name": "benchmark"}, "task": {"labels": ["negative", "positive"]}}
    run = check(RunConfig, settings, "benchmark")
    model = warm_model(run)
    records = [row for row in read_vader() if row["institution"] == "films"][:UNITS]
    units = make_units(records, run.task, model.tokenizer, bytes(32))
    batched = batch_units(units, model, run.speed.tokens_per_micro_batch)
    private = PrivacyPlan("record", PROBABILITY, 40, UNITS, 1.0, "automatic", 1.3, 1e-5, 0.1)
    plain = NoPrivacy(PROBABILITY, 40, UNITS)
    times: list[tuple[float, float]] = []
    for number in range(pairs + 2):
        # The order alternates, so that a drifting machine favours neither.
        order = (private, plain) if number % 2 == 0 else (plain, private)
        taken = {type(plan): _seconds(plan, model, batched) for plan in order}
        times.append((taken[PrivacyPlan], taken[NoPrivacy]))
    times = times[2:]
    began = time.perf_counter()
    standard_normals(Coins.fresh(), sum(value.size for value in get_state(model.module).values()))
    noise = time.perf_counter() - began
    private_seconds = statistics.median(pair[0] for pair in times)
    return {
        "private_over_plain": round(statistics.median(a / b for a, b in times), 4),
        "private_examples_per_second": round(UNITS * PROBABILITY / private_seconds, 1),
        "plain_examples_per_second": round(UNITS * PROBABILITY / statistics.median(pair[1] for pair in times), 1),
        "noise_share_of_private_step": round(noise / private_seconds, 4),
        "pairs": pairs,
    }


def _seconds(plan: PrivacyPlan | NoPrivacy, model: WarmModel, units: BatchedUnits) -> float:
    work = LocalWork(plan, get_state(model.module), 1, 1.0)
    coins = FixedDraw()
    began = time.perf_counter()
    train(work, model, units, coins)
    return time.perf_counter() - began


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=15, help="pairs of steps (15)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    facts = measure(options.pairs)
    print(json.dumps(facts) if options.json else "\n".join(f"{name:30} {value}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
