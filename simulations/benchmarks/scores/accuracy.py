"""Accuracy against epsilon, beside central training and each institution alone, and the accuracy that speed costs.

    python simulations/benchmarks/scores/accuracy.py [--repeats 3] [--only 'epsilon 3,transfer int8'] [--out FILE]

Each repeat draws its own samples and noise; the run's public seed decides the split of the data. A run takes minutes,
all of them a night: each is added to the file when it ends, and the same command goes on from there. The printed
figures, and the PNG beside the file, are over all lines of the file with the same settings and the same kind of
machine. After a change of the code that could move accuracy, begin another file.
"""

import argparse
import hashlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from confide.common import flower
from confide.common.config.run import RunConfig, load_run, lock
from confide.common.model.base_models import fetch_model, hash_model
from confide.common.model.scores import Scores

flower.prepare()

from confide.simulations.benchmarks.bench import machine  # noqa: E402
from confide.simulations.data.institutions import load_institutions, load_private  # noqa: E402
from confide.simulations.engines.federation import Federation  # noqa: E402
from confide.simulations.sites.simulated_sites import simulated_sites  # noqa: E402
from confide.simulations.studies.baselines import alone, pooled, together  # noqa: E402 - after Flower's environment is set
from confide.simulations.studies.prepared import file_of  # noqa: E402

Way = Literal["together", "pooled", "alone"]
Line = dict[str, Any]
EPSILONS = (8, 3, 1)
MEASURED = Path(__file__).parents[3] / "docs" / "measured"  # figures that are kept
_AT_3 = "privacy.target_epsilon=3"

# Runs by name: the way in which institutions train, and the changes to the scenario. The first ones make the picture.
CURVE: dict[str, tuple[Way, list[str]]] = {
    "central": ("pooled", ["privacy.unit=none"]),
    "no privacy": ("together", ["privacy.unit=none"]),
    **{f"epsilon {epsilon}": ("together", [f"privacy.target_epsilon={epsilon}"]) for epsilon in EPSILONS},
    **{f"alone epsilon {epsilon}": ("alone", [f"privacy.target_epsilon={epsilon}"]) for epsilon in EPSILONS},
}
RUNS: dict[str, tuple[Way, list[str]]] = {
    **CURVE,
    **{f"transfer {form}": ("together", [_AT_3, f"federation.transfer={form}"]) for form in ("float16", "int8")},
    "layers top:3": ("together", [_AT_3, "adapter.layers=top:3"]),
    **{f"precision {name}": ("together", [_AT_3, f"speed.precision={name}"]) for name in ("float32", "bfloat16")},
}

# Pairs of runs to compare, and the bar, if any: the points by which the first may be below the second.
COMPARED: list[tuple[str, str, float | None]] = [
    ("no privacy", "central", -1.5),
    ("epsilon 8", "no privacy", -3.0),
    ("epsilon 3", "no privacy", -5.0),
    ("epsilon 1", "no privacy", None),
    *((f"alone epsilon {epsilon}", f"epsilon {epsilon}", None) for epsilon in EPSILONS),
    *((name, "epsilon 3", -0.5 if name.startswith("precision") else None) for name in RUNS if name not in CURVE),
]


# Settings that move no score: a unit's gradient has the same bits in every shape that passes its trial.
NO_SCORE = {"speed": {"tokens_per_micro_batch"}}


@dataclass(frozen=True)
class Setting:
    """One of the compared runs: a locked run, and the way in which its institutions train."""

    way: Way
    run: RunConfig

    @property
    def key(self) -> str:
        """The hash of all settings that can move a score; of the base model its own hash, wherever its folder lies."""
        settings = self.run.model_dump_json(exclude={"model": {"base"}, **NO_SCORE})
        return hashlib.sha256((self.way + settings).encode()).hexdigest()[:16]


def settings(overrides: list[str]) -> dict[str, Setting]:
    """Return the runs by name, each to be evaluated once, at its end."""
    path = file_of(Path("reviews"))
    sha256 = hash_model(fetch_model(load_run(path, overrides).model.base))
    found = {}
    for name, (way, own) in RUNS.items():
        run = load_run(path, [*overrides, *own])
        run = load_run(path, [*overrides, *own, f"evaluation.every={run.federation.num_rounds}"])
        found[name] = Setting(way, lock(run, sha256))
    return found


def accuracy(setting: Setting) -> Scores:
    """Return the accuracy of one run from start to end, on the public test share of each institution."""
    run = setting.run
    with tempfile.TemporaryDirectory(prefix="confide-accuracy-") as folder:
        local = Path(folder)
        sites = simulated_sites(run, load_private, local)
        federation = Federation(run, sites, load_institutions(run).public, lambda event: None, lambda *_: None)
        if setting.way == "alone":
            each = [alone(name, federation, run, local) for name in sites.names]
            own = {name: value for scores in each for name, value in scores.per_institution.items()}
            return Scores(each[0].metric, own)
        return (together if setting.way == "together" else pooled)(federation, run, local)


def kind_of_machine() -> dict[str, Any]:
    """Return the facts of this machine that decide the arithmetic of a run; its speed does not move accuracy."""
    return {name: machine()[name] for name in ("processor", "bfloat16_tiles", "cuda", "torch")}


def read(path: Path) -> list[Line]:
    """Return the runs of this kind of machine that a file holds."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [line for line in lines if line["machine"] == kind_of_machine()]


def add(path: Path, name: str, setting: Setting) -> None:
    """Make one run, and add it to the file."""
    began = time.monotonic()
    reached = accuracy(setting)
    line = {
        "name": name,
        "settings": setting.key,
        "machine": kind_of_machine(),
        "accuracy": round(100 * reached.mean, 3),
        "per_institution": {name: round(100 * value, 3) for name, value in reached.per_institution.items()},
        "seconds": round(time.monotonic() - began, 1),
    }
    append(path, line)
    print(f"{name:18} {line['accuracy']:.2f} ({line['seconds']:.0f} s)", file=sys.stderr, flush=True)


def append(path: Path, line: Line) -> None:
    """Add a line to a file of scores."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def summary(lines: list[Line], wanted: dict[str, Setting]) -> dict[str, Any]:
    """Return mean, extremes (percent) and number of runs of each setting, and the differences of pairs, in points."""
    values = {name: [line["accuracy"] for line in lines if line["settings"] == it.key] for name, it in wanted.items()}
    runs = {
        name: {"mean": round(statistics.mean(found), 3), "min": min(found), "max": max(found), "count": len(found)}
        for name, found in values.items()
        if found
    }
    differences = {}
    for name, against, bar in COMPARED:
        if name in runs and against in runs:
            points = round(runs[name]["mean"] - runs[against]["mean"], 3)
            error = standard_error(values[name], values[against])
            differences[name] = {"against": against, "points": points, "standard_error": error, "bar": bar}
    return {"runs": runs, "differences": differences}


def standard_error(*samples: list[float]) -> float | None:
    """Return the standard error of a difference of means; None if one of them is a single run."""
    if min(map(len, samples)) < 2:
        return None
    return round(math.sqrt(sum(statistics.variance(values) / len(values) for values in samples)), 3)


def table(facts: dict[str, Any]) -> str:
    """Return the summary as text for a person."""
    lines = [f"{'accuracy, percent':18} {'mean':>6} {'min':>6} {'max':>6} runs"]
    for name, row in facts["runs"].items():
        lines.append(f"{name:18} {row['mean']:6.2f} {row['min']:6.2f} {row['max']:6.2f} {row['count']:4}")
    for name, found in facts["differences"].items():
        error = "" if found["standard_error"] is None else f", standard error {found['standard_error']:.2f}"
        bar = "" if found["bar"] is None else f"; the aim is {found['bar']:g} or better"
        lines.append(f"{name} against {found['against']}: {found['points']:+.2f} points{error}{bar}")
    return "\n".join(lines)


def draw(runs: Mapping[str, Line], epsilons: Sequence[int], path: Path) -> None:
    """Write a PNG: federated and alone as lines over epsilon, from the strictest to none; central as a level.

    Args:
        runs: ``mean``, ``min`` and ``max`` by name, as `accuracy.py` names them; missing runs are not drawn.
        epsilons: of the runs with privacy.
        path: of the PNG.
    """
    ordered = [str(epsilon) for epsilon in sorted(epsilons)]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes: Axes = figure.subplots()
    if central := runs.get("central"):
        axes.axhline(central["mean"], color="tab:gray", linestyle="--", label="central, no privacy")
        axes.axhspan(central["min"], central["max"], color="tab:gray", alpha=0.2)
    federated = {"none": "no privacy", **{epsilon: f"epsilon {epsilon}" for epsilon in ordered}}
    own = {epsilon: f"alone epsilon {epsilon}" for epsilon in ordered}
    places = [*ordered, "none"]
    for label, names, style in (("federated", federated, "o-"), ("each institution alone", own, "s-")):
        points = [(place, runs[names[place]]) for place in places if names.get(place) in runs]
        if points:
            means = [row["mean"] for _, row in points]
            below = [row["mean"] - row["min"] for _, row in points]
            above = [row["max"] - row["mean"] for _, row in points]
            at = [places.index(place) for place, _ in points]
            axes.errorbar(at, means, yerr=[below, above], fmt=style, capsize=4, label=label)
    axes.set_xticks(range(len(places)), places)
    axes.set_xlim(-0.4, len(places) - 0.6)
    axes.set_xlabel("epsilon of each institution, for each unit")
    axes.set_ylabel("accuracy on the public test shares, percent")
    axes.set_title("means; bars reach from the smallest run to the largest", fontsize="small")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Make the missing runs, then print and draw all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="runs of each setting that the file shall hold (3)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the scenario")
    parser.add_argument("--only", default=",".join(CURVE), help=f"names separated by commas, of: {', '.join(RUNS)}")
    parser.add_argument("--out", type=Path, default=Path("accuracy.jsonl"), help="file of the runs (accuracy.jsonl)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args()
    only = [name.strip() for name in options.only.split(",")]
    if unknown := [name for name in only if name not in RUNS]:
        parser.error(f"--only: {unknown[0]!r} is not one of {', '.join(RUNS)}")
    wanted = settings(options.set)
    for number in range(options.repeats):
        for name in only:
            if sum(line["settings"] == wanted[name].key for line in read(options.out)) <= number:
                add(options.out, name, wanted[name])
    facts = summary(read(options.out), wanted)
    draw(facts["runs"], EPSILONS, options.out.with_suffix(".png"))
    print(json.dumps(facts) if options.json else table(facts))


if __name__ == "__main__":
    main()
