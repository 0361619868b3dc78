"""The cost of many institutions: time for each that trains, and peak memory, with 10 to 5,000 of them.

    python simulations/benchmarks/scale.py [--clients 10,100,1000,5000] [--json]

Each institution has 20 short synthetic records on the default base model, and each of two rounds asks a tenth of the
institutions. Every count runs in a process of its own, whose peak memory is given. Time runs from the offer, which goes
to all, to the end of the last round; so it holds five offers for each training.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from confide.common import flower
from confide.common.config.run import RunConfig, lock
from confide.common.config.toml import check
from confide.common.model.base_models import find_model, hash_model

COUNTS = (10, 100, 1000, 5000)
RECORDS, ROUNDS, PARTICIPATION = 20, 2, 0.1
_WORDS = ("the plot", "is thin", "and slow", "but every actor", "gives", "a warm", "funny", "and quite moving", "turn")


def measure(counts: tuple[int, ...] = COUNTS) -> dict[str, Any]:
    """Return figures by number of institutions, and ``memory_5000_over_10`` if both were measured."""
    rows = {count: _in_a_child(count) for count in counts}
    facts: dict[str, Any] = {"clients": rows}
    if 10 in rows and 5000 in rows:
        facts["memory_5000_over_10"] = round(rows[5000]["peak_memory_mb"] / rows[10]["peak_memory_mb"], 3)
    return facts


def _in_a_child(count: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", str(count)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603 - our own file
    row: dict[str, float] = json.loads(finished.stdout)
    return row


def measure_one(count: int) -> dict[str, float]:
    """Run one federation in this process; return seconds in all and for each training, and peak memory in MB."""
    flower.prepare()  # before the first import of flwr, which the parent never needs
    from confide.common.model.devices import peak_memory_mb
    from confide.server.rounds.checkpoint import save_round
    from confide.simulations.engines.federation import Federation, simulate, start
    from confide.simulations.engines.grid import SkippingClock
    from confide.simulations.sites.simulated_sites import simulated_sites

    settings = {
        "study": {"name": "scale"},
        "task": {"labels": ["negative", "positive"]},
        "federation": {"num_rounds": ROUNDS, "participation": PARTICIPATION},
        "local": {"nominal_units": RECORDS},
        "privacy": {"noise_multiplier": 1.0},
        "simulation": {"data": "synthetic", "validation_fraction": 0.0},
    }
    run = check(RunConfig, settings, "scale")
    run = lock(run, hash_model(find_model(run.model.base)))
    private = {f"institution-{number:04d}": _records(number) for number in range(count)}
    trained: list[str] = []
    with tempfile.TemporaryDirectory() as folder:

        def save(number: int, state: Any, accepted: list[dict[str, str]], lineage: str) -> None:
            save_round(Path(folder) / "rounds", number, state, accepted, lineage)
            trained.extend(item["institution"] for item in accepted)

        sites = simulated_sites(run, lambda _: private, Path(folder))
        federation = Federation(run, sites, {}, lambda event: None, save)
        state = start(federation, SkippingClock())
        began, worked = time.perf_counter(), time.process_time()
        simulate(federation, state)
        seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    return {
        "peak_memory_mb": round(peak_memory_mb(), 1),
        "trained": len(trained),
        "seconds": round(seconds, 2),
        "ms_per_training": round(1000 * seconds / len(trained), 2),
        "cpu_ms_per_training": round(1000 * cpu / len(trained), 2),
    }


def _records(number: int) -> list[dict[str, Any]]:
    """Return short texts, the same in every run."""
    chosen = random.Random(number)  # noqa: S311 - synthetic texts, nothing private
    texts = [" ".join(chosen.choices(_WORDS, k=chosen.randint(4, 14))) for _ in range(RECORDS)]
    return [{"text": text, "label": chosen.choice(["negative", "positive"])} for text in texts]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clients", default=",".join(map(str, COUNTS)), help="numbers of clients (10,100,1000,5000)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # in a child process
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_one(options.one)))
        return
    facts = measure(tuple(int(count) for count in options.clients.split(",")))
    if options.json:
        print(json.dumps(facts))
        return
    for count, row in facts["clients"].items():
        print(f"{count:>6} clients  " + "  ".join(f"{name} {value}" for name, value in row.items()))
    if "memory_5000_over_10" in facts:
        print(f"memory_5000_over_10 {facts['memory_5000_over_10']}")


if __name__ == "__main__":
    main()
