"""The gain of each training aid on the default scenario: the same federation with and without it, over paired seeds.

    python simulations/benchmarks/scores/aids.py [--seeds 21,22,23,24,25] [--public 300] [--out FILE]
        [--scenario questions --set simulation.test_fraction=0.89]

Some of the scenario's texts are declared public; the institutions hold the others. An adapter is trained on the public
texts without privacy, as docs/aids.md shows, and the federation begins with it. Other aids begin from zero. This writes
the table of docs/aids.md, for the default scenario as it is. Each score is added to the file when it is known, and the
same command goes on from there.
"""

import argparse
import functools
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.random import PCG64, Generator
from scipy.stats import t as student

from confide.common import flower
from confide.common.config.run import RunConfig
from confide.common.config.sections import SECURE_SUM
from confide.common.data.records import Record

flower.prepare()

from confide.common.export.load import load_adapter  # noqa: E402
from confide.common.model.adapter import get_state  # noqa: E402
from confide.common.model.evaluation import evaluate  # noqa: E402
from confide.simulations.benchmarks.scores.accuracy import (  # noqa: E402
    MEASURED,
    NO_SCORE,
    append,
    kind_of_machine,
    read,
    standard_error,
)
from confide.simulations.benchmarks.scores.methods import WAYS  # noqa: E402
from confide.simulations.benchmarks.scores.scenarios import shown, write_table  # noqa: E402
from confide.simulations.data.institutions import load_institutions  # noqa: E402
from confide.simulations.interface.calls import simulate  # noqa: E402
from confide.simulations.interface.given import with_data  # noqa: E402
from confide.simulations.studies.baselines import without_privacy  # noqa: E402
from confide.simulations.studies.prepared import load  # noqa: E402 - after Flower's environment is set

Line = dict[str, Any]
_DOCUMENT = Path(__file__).parents[3] / "docs" / "aids.md"
_ROUNDS, _RATE = 40, 2e-2  # of the training on public texts
_ALONE = "public texts alone"
Changed = tuple[str, ...]  # a scenario's name, and settings to change, as of --set
_DEFAULT: Changed = ("default",)
_START = "a start on public texts"
AIDS: dict[str, Callable[[RunConfig, Path], RunConfig]] = {
    _START: lambda run, start: _with(run, "adapter", start_from=str(start)),
    "adversarial = 0.05": lambda run, start: _with(run, "local", adversarial=0.05),
}


def scenario(changed: Changed, seed: int) -> RunConfig:
    """Return a scenario's run, with changed settings and a seed."""
    name, *changes = changed
    return load(Path(name), [*changes, f"study.seed={seed}"])


def ways(changed: Changed) -> list[str]:
    """Return the ways to train a scenario, the ones with most noise last; shared noise only where it shares any."""
    shares = scenario(changed, seed=0).federation.aggregation == SECURE_SUM
    return [way for way in reversed(WAYS) if shares or way != "shared noise"]


def divided(changed: Changed, seed: int, number: int) -> tuple[list[Record], list[Record]]:
    """Return so many texts of the scenario, to be public, and all others; the seed draws them."""
    found = load_institutions(scenario(changed, seed))
    rows = [row for shares in (found.private, found.public) for own in shares.values() for row in own]
    order = Generator(PCG64(seed)).permutation(len(rows)).tolist()
    return [rows[place] for place in order[:number]], [rows[place] for place in order[number:]]


def of_public_texts(changed: Changed, seed: int, number: int) -> RunConfig:
    """Return the run that trains on public texts: one holder, every text in every round, no privacy."""
    run = without_privacy(scenario(changed, seed))
    federation = {"min_clients": 1, "num_rounds": _ROUNDS, "learning_rate": _RATE, "learning_rate_left": 0.0}
    simulation = {"clients": 1, "validation_fraction": 0.0, "test_fraction": 1 / number}
    sections = {
        "federation": run.federation.model_copy(update=federation),
        "local": run.local.model_copy(update={"sampling_probability": 1.0, "nominal_units": number}),
        "evaluation": run.evaluation.model_copy(update={"every": _ROUNDS}),
    }
    if run.simulation is not None:
        sections["simulation"] = run.simulation.model_copy(update=simulation)
    return run.model_copy(update=sections)


def of_institutions(changed: Changed, seed: int, way: str) -> RunConfig:
    """Return the scenario's run, trained in one of three ways and scored at its end."""
    run = scenario(changed, seed)
    every = run.evaluation.model_copy(update={"every": run.federation.num_rounds})
    found: RunConfig = WAYS[way](run.model_copy(update={"evaluation": every}))
    return found


class Pair:
    """The same federation at one seed with and without aids; the adapter of the public texts is trained once."""

    def __init__(self, changed: Changed, seed: int, number: int, folder: Path) -> None:
        self.changed, self.seed, self.number, self.folder = changed, seed, number, folder
        self._public, self._others = divided(changed, seed, number)

    def start(self) -> Path:
        """Return the adapter of the public texts."""
        path = self.folder / f"public-{self.seed}"
        if not path.exists():
            simulate(of_public_texts(self.changed, self.seed, self.number), self._public, out=path, quiet=True)
        return path

    def federated(self, way: str, aid: str | None) -> float:
        """Return the federation's score with an aid or without, in percent."""
        run = of_institutions(self.changed, self.seed, way)
        if aid is not None:
            run = AIDS[aid](run, self.start() if aid == _START else Path())
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            found = simulate(run, self._others, out=Path(folder) / "run", quiet=True)
        return 100 * float(found.metrics["mean"])

    def alone(self) -> float:
        """Return the score of the public texts' adapter on the same test shares, in percent."""
        run = with_data(of_institutions(self.changed, self.seed, "no privacy"), self._others, self.folder / "data")
        _, model = load_adapter(self.start())
        return 100 * evaluate(model, get_state(model.module), load_institutions(run).public).mean


def key(changed: Changed, seed: int, number: int, name: str) -> str:
    """Return the hash of all settings of a score."""
    way, _, aid = name.partition(", ")
    plain = of_institutions(changed, seed, way if way in WAYS else "no privacy")
    runs = [of_public_texts(changed, seed, number), plain]
    if aid:
        runs.append(AIDS[aid](plain, Path("start")))
    return hashlib.sha256(
        (f"{name} {number} " + "".join(run.model_dump_json(exclude=NO_SCORE) for run in runs)).encode()
    ).hexdigest()


def _with(run: RunConfig, section: str, **values: Any) -> RunConfig:
    return run.model_copy(update={section: getattr(run, section).model_copy(update=values)})


def scores(pair: Pair) -> dict[str, Callable[[], float]]:
    """Return what finds each score, by name."""
    found: dict[str, Callable[[], float]] = {_ALONE: pair.alone}
    for way in ways(pair.changed):
        found[way] = functools.partial(pair.federated, way, None)
        found |= {f"{way}, {aid}": functools.partial(pair.federated, way, aid) for aid in AIDS}
    return found


def add(path: Path, pair: Pair, name: str, find: Callable[[], float]) -> None:
    """Find one score, and add it to the file."""
    began = time.monotonic()
    line = {
        "name": name,
        "scenario": " ".join(pair.changed),
        "seed": pair.seed,
        "settings": key(pair.changed, pair.seed, pair.number, name),
        "machine": kind_of_machine(),
        "score": round(find(), 3),
        "seconds": round(time.monotonic() - began, 1),
    }
    append(path, line)
    print(f"{name:42} seed {pair.seed} {line['score']:.1f} ({line['seconds']:.0f} s)", file=sys.stderr)


def interval(gains: list[float]) -> str:
    """Return the mean of paired differences and its 95 % interval by Student's t.

    >>> interval([1.0, 2.0, 3.0])
    '+2.0 (-0.5 to +4.5)'
    """
    mean, error = sum(gains) / len(gains), standard_error(gains)
    if error is None:
        return f"{mean:+.1f}"
    half = float(student.ppf(0.975, len(gains) - 1)) * error
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def table(found: dict[str, dict[int, float]]) -> str:
    """Return the scores as Markdown: with and without each aid, and the difference of pairs with its 95 % interval."""
    rows = ["| aid | | without | with | gain in points (95 % interval) |", "|---|---|---|---|---|"]
    for aid in AIDS:
        for way in (name for name in found if name in WAYS):
            plain, aided = found[way], found[f"{way}, {aid}"]
            gain = interval([aided[seed] - plain[seed] for seed in plain])
            rows.append(f"| {aid} | {way} | {shown([*plain.values()])} | {shown([*aided.values()])} | {gain} |")
    rows.append(f"| {_ALONE} | | | {shown([*found[_ALONE].values()])} | |")
    return "".join(f"{row}\n" for row in rows)


def main() -> None:
    """Find the missing scores, then write and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", default="21,22,23,24,25", help="seeds separated by commas (21,22,23,24,25)")
    parser.add_argument("--public", type=int, default=300, help="texts that are declared public (300)")
    parser.add_argument("--out", type=Path, default=MEASURED / "aids.jsonl", help="file of the scores")
    parser.add_argument("--scenario", default="default", help="another scenario, whose table is printed only")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the scenario")
    options = parser.parse_args()
    changed = (options.scenario, *options.set)
    found: dict[str, dict[int, float]] = {}
    for seed in map(int, options.seeds.split(",")):
        with tempfile.TemporaryDirectory(prefix="confide-aids-") as folder:
            pair = Pair(changed, seed, options.public, Path(folder))
            for name, find in scores(pair).items():
                settings = key(changed, seed, options.public, name)
                if not any(line["settings"] == settings for line in read(options.out)):
                    add(options.out, pair, name, find)
                line = next(line for line in read(options.out) if line["settings"] == settings)
                found.setdefault(name, {})[seed] = line["score"]
    if changed == _DEFAULT:
        write_table(_DOCUMENT, table(found))
    print(table(found))


if __name__ == "__main__":
    main()
