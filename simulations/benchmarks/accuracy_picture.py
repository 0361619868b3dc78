"""The picture of `accuracy.py`: accuracy against epsilon, means with the smallest and the largest of the repeats."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Row = Mapping[str, Any]


def draw(runs: Mapping[str, Row], epsilons: Sequence[int], path: Path) -> None:
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
