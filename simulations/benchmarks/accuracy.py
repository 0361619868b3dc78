"""Accuracy against epsilon: central, federated without privacy, and with epsilon 8, 3 and 1, on the default scenario.

    python simulations/benchmarks/accuracy.py [--repeats 3] [--set section.key=value ...] [--json]

Each repeat draws its own samples and noise; the split of the data is that of the run's public seed. Prints the mean
over the institutions' public test shares, for each repeat and on average, and the differences that the bars speak of.
"""

import argparse
import json
import statistics
import sys
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from confide.common import flower
from confide.common.models import fetch_model, hash_model
from confide.common.records import Row
from confide.common.run_config import RunConfig, load_run, lock

flower.prepare()

from confide.simulations.baselines import without_privacy  # noqa: E402 - after Flower's environment is set
from confide.simulations.federation import Federation, outcome, simulate, start  # noqa: E402
from confide.simulations.grid import SkippingClock  # noqa: E402
from confide.simulations.institutions import load_institutions, load_pooled, load_private  # noqa: E402
from confide.simulations.sites import simulated_sites  # noqa: E402


def settings(overrides: list[str]) -> dict[str, tuple[RunConfig, Any]]:
    """The runs to compare, by name, each with the function that shares out its records."""
    path = Path(str(files("confide.simulations").joinpath("scenarios/default.toml")))
    base = load_run(path, overrides)
    sha256 = hash_model(fetch_model(base.model.base))
    plain = without_privacy(lock(base, sha256))
    pooled = plain.model_copy(update={"federation": plain.federation.model_copy(update={"min_clients": 1})})
    runs: dict[str, tuple[RunConfig, Any]] = {"central": (pooled, load_pooled), "no privacy": (plain, load_private)}
    for epsilon in (8.0, 3.0, 1.0):
        run = load_run(path, [*overrides, f"privacy.target_epsilon={epsilon}"])
        runs[f"epsilon {epsilon:g}"] = (lock(run, sha256), load_private)
    return runs


def accuracy(run: RunConfig, load: Any) -> float:
    """One federation from start to end: mean accuracy over the public test shares."""
    once = run.model_copy(update={"evaluation": run.evaluation.model_copy(update={"every": run.federation.num_rounds})})
    shares: dict[str, list[Row]] = load_institutions(run).public
    local = Path(mkdtemp(prefix="confide-accuracy-"))
    sites = simulated_sites(once, load, local)
    federation = Federation(once, sites, shares, lambda event: None, lambda *round_: None)
    strategy = start(federation, SkippingClock())
    simulate(federation, strategy)
    reached = outcome(strategy).accuracy
    assert reached is not None  # there are test shares
    return reached.mean


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each setting (3)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the scenario")
    parser.add_argument("--only", default="", help="comma-separated names of settings, for example 'epsilon 3'")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    runs = {name: run for name, run in settings(options.set).items() if not options.only or name in options.only}
    scores: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.repeats):
        for name, (run, load) in runs.items():
            scores[name].append(100 * accuracy(run, load))
            print(f"{name:12} {scores[name][-1]:.2f}", file=sys.stderr, flush=True)
    means = {name: round(statistics.mean(values), 2) for name, values in scores.items()}
    facts = {"mean": means, "runs": {name: [round(value, 2) for value in values] for name, values in scores.items()}}
    print(json.dumps(facts) if options.json else "\n".join(f"{name:12} {value:.2f}" for name, value in means.items()))


if __name__ == "__main__":
    main()
