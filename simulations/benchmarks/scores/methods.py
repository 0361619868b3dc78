"""Every method on the default scenario: size, step time, and score without privacy, with local and with shared noise.

    python simulations/benchmarks/scores/methods.py [--seeds 7,8,9] [--only 'lora;ia3'] [--out FILE]

It writes the table of docs/methods.md. Each score is added to the file when it is known, and the same command goes on
from there. Methods differ in the learning rate that suits them: three are tried at the first seed, without privacy and
with shared noise, and the best of each stands in the table. Local noise takes the rate of shared noise. That choice
flatters each method a little.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from confide.common import flower
from confide.common.config.run import RunConfig, load_run, lock
from confide.common.methods import MethodSettings

flower.prepare()

from confide.common.model.adapter import build_module, schema  # noqa: E402
from confide.common.model.base_models import fetch_model, hash_model  # noqa: E402
from confide.common.model.families import with_targets  # noqa: E402
from confide.simulations.benchmarks.inputs.texts import PRIVATE, film_texts, prepare  # noqa: E402
from confide.simulations.benchmarks.scores.accuracy import MEASURED, Setting, accuracy, append, kind_of_machine, read  # noqa: E402
from confide.simulations.benchmarks.scores.scenarios import shown, write_table  # noqa: E402
from confide.simulations.benchmarks.step import step_seconds  # noqa: E402
from confide.simulations.data.institutions import load_private  # noqa: E402
from confide.simulations.sites.members import with_members  # noqa: E402
from confide.simulations.studies.baselines import with_local_noise, without_privacy  # noqa: E402
from confide.simulations.studies.prepared import file_of  # noqa: E402
from confide.simulations.studies.remembered import Checked  # noqa: E402 - after Flower's environment is set

Line = dict[str, Any]
_DOCUMENT = Path(__file__).parents[3] / "docs" / "methods.md"
_RATES = (0.02, 0.06, 0.2)
_TEXTS = 1000  # of the measured steps, of which a tenth is drawn

METHODS: dict[str, dict[str, Any]] = {
    "lora": {"layers": "top:3"},
    "lora, A and B": {"layers": "top:3", "train": "AB"},
    "lora, all linear layers": {"layers": "top:3", "targets": "all-linear"},
    **{name: {"method": name, "layers": "top:3"} for name in ("ia3", "bottleneck", "bitfit", "norms")},
    **{name: {"method": name} for name in ("head", "prompt-tuning", "p-tuning", "prefix-tuning")},
}
WAYS = {"shared noise": lambda run: run, "local noise": with_local_noise, "no privacy": without_privacy}
_RATE_OF = {"local noise": "shared noise"}  # a way that takes the best rate of another


@dataclass(frozen=True)
class Trial:
    """One method at one learning rate and seed."""

    method: str
    rate: float
    seed: int

    def run(self) -> RunConfig:
        """Return the default scenario with this method, locked."""
        path = file_of(Path("default"))
        run = load_run(path, [f"study.seed={self.seed}", f"federation.learning_rate={self.rate}"])
        every = run.evaluation.model_copy(update={"every": run.federation.num_rounds})
        adapter = TypeAdapter(MethodSettings).validate_python(METHODS[self.method])
        run = run.model_copy(update={"adapter": adapter, "evaluation": every})
        folder = fetch_model(run.at(run.model.base))
        run = with_members(with_targets(run, folder), load_private(run))
        return lock(run, hash_model(folder), Checked())


def add(path: Path, trial: Trial, way: str) -> None:
    """Find one score, and add it to the file."""
    began = time.monotonic()
    run = WAYS[way](trial.run())
    scores = accuracy(Setting("together", run))
    line = {
        "method": trial.method,
        "rate": trial.rate,
        "seed": trial.seed,
        "way": way,
        "settings": Setting("together", run).key,
        "machine": kind_of_machine(),
        "score": round(100 * scores.mean, 3),
        "seconds": round(time.monotonic() - began, 1),
    }
    append(path, line)
    told = f"{trial.method:24} {way:13} rate {trial.rate} seed {trial.seed} {line['score']:.1f}"
    print(f"{told} ({line['seconds']:.0f} s)", file=sys.stderr)


def known(path: Path, trial: Trial, way: str) -> Line | None:
    """Return the line of a score with today's settings on this kind of machine."""
    key = Setting("together", WAYS[way](trial.run())).key
    return next((line for line in read(path) if line["settings"] == key), None)


def best_rate(path: Path, method: str, seed: int, way: str) -> float:
    """Return the learning rate at which a method does best at one seed, of those that are known for a way."""
    found = {rate: known(path, Trial(method, rate, seed), _RATE_OF.get(way, way)) for rate in _RATES}
    return max((rate for rate in _RATES if found[rate]), key=lambda rate: (found[rate] or {})["score"])


def sizes(run: RunConfig) -> tuple[int, int]:
    """Return how many numbers a run trains, and the bytes of a share of a round's sum: 4 for each number."""
    shapes = schema(build_module(run, fetch_model(run.at(run.model.base)), torch.device("meta")))
    count = sum(math.prod(shape) for shape in shapes.values())
    return count, 4 * count


def step_over_lora(method: str, pairs: int = 3) -> float:
    """Return the time of a private step over that of LoRA's, the median of some pairs; each loads its model anew."""
    ratios = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(pairs):
            times = {}
            for name in ("lora", method):
                bench = prepare(film_texts()[:_TEXTS], METHODS[name], None, Path(cache))
                step_seconds(PRIVATE, bench)  # warms up
                times[name] = step_seconds(PRIVATE, bench)
            ratios.append(times[method] / times["lora"])
    return statistics.median(ratios)


def row(path: Path, method: str, seeds: list[int]) -> str:
    """Return a method's row of the table."""
    rates = {way: best_rate(path, method, seeds[0], way) for way in reversed(WAYS)}
    count, size = sizes(Trial(method, _RATES[0], seeds[0]).run())
    scores = []
    for way, rate in rates.items():
        lines = [known(path, Trial(method, rate, seed), way) for seed in seeds]
        scores.append(shown([line["score"] for line in lines if line]))
    tuned = " / ".join(f"{rate:g}" for way, rate in rates.items() if way not in _RATE_OF)
    cells = [f"`{method}`", f"{count:,}", f"{size / 1000:,.0f} kB", f"{step_over_lora(method):.2f}", tuned, *scores]
    return f"| {' | '.join(cells)} |\n"


def main() -> None:
    """Find the missing scores, then write and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", default="7,8,9", help="seeds separated by commas (7,8,9)")
    parser.add_argument("--only", help=f"separated by semicolons, of: {'; '.join(METHODS)}")
    parser.add_argument("--out", type=Path, default=MEASURED / "methods.jsonl", help="file of the scores")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    methods = options.only.split(";") if options.only else list(METHODS)
    for method in methods:
        for rate in _RATES:
            for way in [way for way in WAYS if way not in _RATE_OF]:
                _find(options.out, Trial(method, rate, seeds[0]), way)
    for seed in seeds:
        for method in methods:
            for way in WAYS:
                _find(options.out, Trial(method, best_rate(options.out, method, seeds[0], way), seed), way)
    titles = "method", "trained", "a round", "step, of LoRA's", "rates", *reversed(WAYS)
    head = f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}\n"
    text = head + "".join(row(options.out, method, seeds) for method in METHODS if method in methods)
    if methods == list(METHODS):
        write_table(_DOCUMENT, text)
    print(text)


def _find(path: Path, trial: Trial, way: str) -> None:
    if known(path, trial, way) is None:
        add(path, trial, way)


if __name__ == "__main__":
    main()
