"""Scores on public test shares, by institution. Free of torch: the server reads them too."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confide.common.shown import shown

_PERCENT = {"accuracy", "f1", "exact match"}  # metrics that people read in percent


@dataclass(frozen=True)
class Scores:
    """The task's headline metric on each institution's public test share."""

    metric: str
    per_institution: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean over institutions; each counts the same."""
        return sum(self.per_institution.values()) / len(self.per_institution)

    def as_json(self) -> dict[str, Any]:
        """Return ``{"metric": ..., "mean": ..., "per_institution": {name: ...}}``."""
        return {"metric": self.metric, "mean": self.mean, "per_institution": self.per_institution}


def is_percent(metric: str) -> bool:
    """Return whether people read a metric in percent; a part ("f1/person") is read as its whole."""
    return metric.partition("/")[0] in _PERCENT


def gain(metric: str, one: float, other: float) -> float:
    """Return how much better the first value of a metric is than the second.

    >>> gain("accuracy", 0.5, 0.75), gain("perplexity", 10.0, 12.0)
    (-0.25, 2.0)
    """
    return other - one if metric == "perplexity" else one - other


def score_text(metric: str, value: float) -> str:
    """Return the value of a metric as people read it.

    >>> score_text("accuracy", 0.7812), score_text("pearson", 0.6118)
    ('78.1%', '0.612')
    """
    return f"{value:.1%}" if is_percent(metric) else f"{value:.3f}"


def metrics_table(metrics: Mapping[str, float]) -> str:
    """Return all metrics as text: whole ones by line, then a row for each part ("f1/person") with a column for each.

    >>> print(metrics_table({"f1": 0.5, "recall/person": 0.25, "f1/person": 0.75}))
    f1      0.500
    <BLANKLINE>
            recall     f1
    person   0.250  0.750
    """
    whole = {name: value for name, value in metrics.items() if "/" not in name}
    # A label may be a server's words.
    parts = {tuple(shown(name).split("/", 1)): value for name, value in metrics.items() if "/" in name}
    columns, rows = list(dict.fromkeys(column for column, _ in parts)), list(dict.fromkeys(row for _, row in parts))
    width = max(map(len, whole), default=0)
    lines = [f"{name:<{width}}  {value:9.3f}" for name, value in whole.items()]
    if rows:
        width, sizes = max(map(len, rows)), [max(len(column), 5) for column in columns]
        lines += ["", " " * width + "".join(f"  {column:>{size}}" for column, size in zip(columns, sizes, strict=True))]
        for row in rows:
            cells = (f"  {parts[column, row]:>{size}.3f}" for column, size in zip(columns, sizes, strict=True))
            lines.append(f"{row:<{width}}" + "".join(cells))
    return "\n".join(lines)
