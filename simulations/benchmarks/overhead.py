"""The cost of a federation beyond training, for each client and round: messages, gate, aggregation, checkpoint.

    python simulations/benchmarks/overhead.py [--clients 100] [--rounds 4] [--json]

A function that returns zeros at once replaces training; updates are as large as those of the scenario "reviews". The
first round, in which texts are encoded, does not count. The script also prints the process's peak memory: run it with
10 and with 100 clients to compare (all have 30 records each). `round.py` measures the same beside real training.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from confide.client.training.local_steps import LocalWork
from confide.common import flower
from confide.common.config.run import RunConfig, lock
from confide.common.config.toml import check
from confide.common.model.base_models import find_model, hash_model
from confide.common.model.devices import peak_memory_mb
from confide.common.tensors import State

flower.prepare()

from confide.server.rounds.checkpoint import save_round  # noqa: E402 - after Flower's environment is set
from confide.server.rounds.run_context import Event  # noqa: E402
from confide.simulations.data.institutions import load_private  # noqa: E402
from confide.simulations.engines.federation import Federation, simulate, start  # noqa: E402
from confide.simulations.engines.grid import SkippingClock  # noqa: E402
from confide.simulations.sites.simulated_sites import simulated_sites  # noqa: E402


def no_training(work: LocalWork, *rest: Any) -> State:
    """Return an update of the right form at no cost."""
    return {name: np.zeros_like(value) for name, value in work.received.items()}


def measure(clients: int, rounds: int) -> dict[str, float]:
    """Return milliseconds for each client and round, and peak memory in MB, of a federation that does not train."""
    settings = {
        "study": {"name": "overhead"},
        "task": {"labels": ["negative", "positive"]},
        "federation": {"num_rounds": rounds},
        "privacy": {"noise_multiplier": 1.0},
        "simulation": {"data": "vader", "clients": clients, "max_records": 30},
    }
    run = check(RunConfig, settings, "overhead")
    run = lock(run, hash_model(find_model(run.model.base)))
    events: list[Event] = []
    with tempfile.TemporaryDirectory() as folder, mock.patch("confide.client.answers.round.train", no_training):

        def save(number: int, state: Any, accepted: list[dict[str, str]], lineage: str) -> None:
            save_round(Path(folder) / "rounds", number, state, accepted, lineage)

        federation = Federation(run, simulated_sites(run, load_private, Path(folder)), {}, events.append, save)
        simulate(federation, start(federation, SkippingClock()))
    seconds = [event["seconds"] for event in events if event["event"] == "round"][1:]
    return {
        "overhead_ms_per_client_round": round(1000 * statistics.median(seconds) / clients, 2),
        "peak_memory_mb": round(peak_memory_mb()),
        "clients": clients,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--clients", type=int, default=100, help="number of clients (100)")
    parser.add_argument("--rounds", type=int, default=4, help="rounds, the first of which does not count (4)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    facts = measure(options.clients, options.rounds)
    print(json.dumps(facts) if options.json else "\n".join(f"{name:30} {value}" for name, value in facts.items()))


if __name__ == "__main__":
    main()
