"""The accuracy of the defaults on several bases and two kinds of texts, over several runs each.

    python simulations/benchmarks/scores/bases.py [--base minilm --base FOLDER] [--repeats 5] [--out FILE]

Three institutions, 16 rounds at q = 0.3, the upper layer. The texts are VADER's (praise or blame), of which each
institution trains on about 650, and TREC's questions (six types), about 1,300. A folder is one of a BERT; `smollm2` is
of `simulations/benchmarks/inputs/causal_model.py`. A run takes minutes. Each is added to docs/measured/bases.jsonl when
it ends, and the same command goes on from there. After a change of the code that could move accuracy, begin another
file.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from confide.common import flower
from confide.common.config.run import RunConfig, lock
from confide.common.config.toml import check
from confide.common.errors import ConfideError
from confide.common.model.base_models import find_model, hash_model

flower.prepare()

from confide.simulations.benchmarks.inputs.causal_model import causal_model  # noqa: E402
from confide.simulations.benchmarks.scores.accuracy import MEASURED, Setting, add, read  # noqa: E402 - after Flower's environment is set

LABELS = {"sentiment": ("negative", "positive"), "questions": ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")}
RECORDS = {"sentiment": 900, "questions": 1800}  # of an institution, its public test share and held-out share included
PRIVACY: dict[str, dict[str, Any]] = {"epsilon 3": {"target_epsilon": 3.0}, "no privacy": {"unit": "none"}}
BARS = {"deviation": 2.0, "below mean": 5.0, "below no privacy": 6.0}  # of the runs at epsilon 3: points, at most
Runs = dict[str, list[float]]


def setting(base: str, kind: str, privacy: str) -> Setting:
    """Return the locked run of a base on a kind of texts; all that is not named here is a default."""
    folder = str(causal_model()) if base == "smollm2" else base
    content: dict[str, Any] = {
        "study": {"name": "bases"},
        "model": {} if base == "minilm" else {"base": folder},
        "adapter": {"layers": "top:1"},
        "task": {"kind": "text-classification", "labels": LABELS[kind]},
        "federation": {"num_rounds": 16, "min_clients": 3, "learning_rate": 5e-2},
        "local": {"sampling_probability": 0.3, "nominal_units": 2 * RECORDS[kind] // 3},
        "privacy": PRIVACY[privacy],
        "evaluation": {"every": 16},
        "simulation": {
            "data": "vader" if kind == "sentiment" else kind,
            "clients": 3,
            "max_records": RECORDS[kind],
        },
    }
    run = check(RunConfig, content, "bases.py")
    return Setting("together", lock(run, hash_model(find_model(run.model.base))))


def figures(runs: Runs) -> dict[str, float]:
    """Return mean, standard deviation, and how far the least and the mean at epsilon 3 are below, in points."""
    values, free = runs["epsilon 3"], runs["no privacy"]
    mean = statistics.mean(values)
    return {
        "mean": mean,
        "deviation": statistics.stdev(values) if len(values) > 1 else 0.0,
        "below mean": mean - min(values),
        "below no privacy": statistics.mean(free) - mean,
    }


def table(facts: dict[str, dict[str, Any]]) -> str:
    """Return the figures as text for a person; one beyond its bar has a star."""
    bars = "".join(f"{f'{name}, at most {bar:g}':>28}" for name, bar in BARS.items())
    lines = [f"{'epsilon 3':36}{'mean':>6}{bars}"]
    for name, own in facts.items():
        cells = (f"{own[bar]:.2f}{'*' if own[bar] > most else ' '}" for bar, most in BARS.items())
        lines.append(f"{name:36}{own['mean']:6.2f}" + "".join(f"{cell:>28}" for cell in cells))
    return "\n".join(lines)


def measured(base: str, kind: str, repeats: int, path: Path) -> Runs:
    """Return the accuracies of a base on a kind of texts, percent; missing runs are made and added to the file."""
    runs: Runs = {}
    for privacy in PRIVACY:
        wanted = setting(base, kind, privacy)
        for _ in range((repeats if privacy == "epsilon 3" else 1) - len(found(path, wanted))):
            add(path, f"{Path(base).name} {kind} {privacy}", wanted)
        runs[privacy] = found(path, wanted)
    return runs


def found(path: Path, wanted: Setting) -> list[float]:
    """Return the accuracies of a setting that a file holds for this kind of machine."""
    return [line["accuracy"] for line in read(path) if line["settings"] == wanted.key]


def main() -> None:
    """Make the missing runs, then print all with the bars."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--base", action="append", help="minilm, smollm2 or a folder (the first two)")
    parser.add_argument("--only", choices=LABELS, help="one kind of texts")
    parser.add_argument("--repeats", type=int, default=5, help="runs at epsilon 3, beside one without privacy (5)")
    parser.add_argument("--out", type=Path, default=MEASURED / "bases.jsonl", help="file of the runs")
    options = parser.parse_args()
    facts = {}
    for base in options.base or ["minilm", "smollm2"]:
        for kind in [options.only] if options.only else LABELS:
            facts[f"{Path(base).name} {kind}"] = figures(measured(base, kind, options.repeats, options.out))
    print(table(facts))


if __name__ == "__main__":
    try:
        main()
    except ConfideError as error:
        sys.exit(f"error: {error}")
