"""The page report.html about one run. It refers to nothing outside the file."""

import base64
import io
import math
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import jinja2
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from confide.common.model.scores import is_percent, score_text
from confide.server.results.findings import findings, score_of
from confide.server.results.run_directory import BASELINES

_INK, _MUTED, _LINE, _ACCENT, _WARM = "#1d2730", "#5b6873", "#bcc7cd", "#0f6466", "#a8501f"
_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, sharp and in the reader's own font
    "svg.hashsalt": "confide",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e8ecee",
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
}


def write_report(path: Path, facts: dict[str, Any]) -> None:
    """Write a run's report.

    Args:
        path: the HTML file.
        facts: all public, or the user's own in a simulation.
            ``title``, ``status``, ``run_dir_name``: str. ``simulated``, ``own_data``: bool.
            ``run``: ``RunConfig.model_dump(mode="json")`` of the locked run. ``versions``: name to version.
            ``plan``: fields of the `PrivacyPlan`, or ``{"no_privacy": True}``.
            ``target_epsilon``, ``target_delta``: float. ``bytes_per_client_round``: int, one update as sent.
            ``metric``: name of the task's headline. ``score``: `Scores.as_json`, or None if nothing was measured.
            ``rounds``: each ``round``, ``score`` (mean, or None), ``per_institution`` (name to score, or None),
            ``epsilon`` (name to epsilon so far, or None), ``accepted`` (number), ``dropped`` (list of str),
            ``seconds``.
            ``institutions``: each ``name``, ``declared_units``, ``epsilon`` (or None), ``num_steps``, ``rounds``
            (accepted), ``dropped`` (list of str), ``score`` (or None).
            ``validation``: the last one of the run: ``round``, ``noise`` (standard deviation), ``counts``
            (name to ``right`` and ``wrong``, noised); may be absent or None.
            ``baselines``: by the names of `run_directory.BASELINES`, each `Scores.as_json`; each may be absent.
            ``samples``: texts of public test records, `evaluation.samples`; may be absent.
            ``statement``: `statement.statement` of the plan; may be absent or None; then its numbers are left out.

    Raises:
        jinja2.UndefinedError: a fact is missing.
    """
    facts = {"baselines": None, "statement": None, "validation": None, "samples": [], **facts}
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        percent=_percent, score=score_of, epsilon=_epsilon, number=_number, size=_size, setting=_setting
    )
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    spent = [row["epsilon"] for row in facts["institutions"] if row["epsilon"] is not None]
    text = template.render(
        facts,
        private="no_privacy" not in facts["plan"],
        epsilon=max(spent, default=None),
        epsilon_if_broken=max((row["epsilon_if_broken"] or 0.0 for row in facts["institutions"]), default=None),
        findings=findings(facts),
        baseline_names=BASELINES,
        score_picture=_score_picture(facts),
        epsilon_picture=_epsilon_picture(facts),
        settings=_settings(facts["run"]),
    )
    path.write_text(text, encoding="utf-8")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _epsilon(value: float | None) -> str:
    """Return an epsilon rounded up, never down: with two decimals, or four if two would overstate it.

    >>> _epsilon(2.9979), _epsilon(0.0123), _epsilon(1.1)
    ('3.00', '0.0123', '1.10')
    """
    if value is None or not math.isfinite(value):
        return "∞"
    exact = Decimal(str(value))
    return str(exact.quantize(Decimal("0.01" if exact >= Decimal("0.1") else "0.0001"), rounding=ROUND_CEILING))


def _number(value: Any) -> str:
    r"""Return a number with thin spaces between thousands. Anything else stays as it is.

    >>> _number(1e-05), _number(12000), _number(0.25)
    ('0.00001', '12\u202f000', '0.25')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    text = f"{value:,}" if isinstance(value, int) else f"{Decimal(f'{value:.10g}'):,f}"
    return text.replace(",", "\u202f")


def _size(count: float) -> str:
    """Return a number of bytes as text.

    >>> _size(999), _size(120_400), _size(3_200_000)
    ('999 bytes', '120.4 kB', '3.2 MB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} bytes"


def _settings(run: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Return the run's settings by section, without those that are not set."""
    shown = {}
    for section, values in run.items():
        if isinstance(values, dict):
            rows = {key: value for key, value in values.items() if value not in (None, [], {}, ())}
            shown[section] = [(key, _setting(value)) for key, value in rows.items()]
    return {section: rows for section, rows in shown.items() if rows}


def _setting(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} = {item}" for key, item in value.items())
    return f"{Decimal(f'{value:.10g}'):f}" if isinstance(value, float) else str(value)


def _score_picture(facts: dict[str, Any]) -> str | None:
    measured = [row for row in facts["rounds"] if row["score"] is not None]
    if not measured:
        return None
    metric, scale = facts["metric"], 100 if is_percent(facts["metric"]) else 1
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(f"{metric} on public test data{', %' if scale == 100 else ''}", facts)
        for name in measured[-1]["per_institution"] or {}:
            own = [
                (row["round"], scale * row["per_institution"][name])
                for row in measured
                if name in (row["per_institution"] or {})
            ]
            axes.plot(*zip(*own, strict=True), color=_LINE, linewidth=1)
        rounds, means = [row["round"] for row in measured], [scale * row["score"] for row in measured]
        axes.plot(rounds, means, color=_ACCENT, linewidth=2, marker="o", markersize=3.5)
        _name_line(axes, (rounds[-1], means[-1]), score_text(metric, means[-1] / scale).rstrip("%"), _ACCENT)
        return _data_uri(figure)


def _epsilon_picture(facts: dict[str, Any]) -> str | None:
    spending = [row for row in facts["rounds"] if row["epsilon"]]
    if not spending:
        return None
    with mpl.rc_context(_STYLE):
        figure, axes = _axes("epsilon spent", facts)
        for name in spending[-1]["epsilon"]:
            own = [(row["round"], row["epsilon"][name]) for row in spending if name in row["epsilon"]]
            axes.plot(*zip(*own, strict=True), color=_LINE, linewidth=1)
        rounds, most = [row["round"] for row in spending], [max(row["epsilon"].values()) for row in spending]
        axes.plot(rounds, most, color=_ACCENT, linewidth=2)
        _name_line(axes, (rounds[-1], most[-1]), _epsilon(most[-1]), _ACCENT)
        target = facts["target_epsilon"]
        axes.plot((0, rounds[-1]), (target, target), color=_WARM, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate("target", (0, target), (4, 4), textcoords="offset points", color=_WARM, fontsize=9)
        axes.set_ylim(0, 1.15 * max(target, most[-1]))
        return _data_uri(figure)


def _axes(title: str, facts: dict[str, Any]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 2.9), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=10.5, color=_INK)
    axes.set_xlabel("round")
    axes.set_xlim(0, 1.1 * max(row["round"] for row in facts["rounds"]))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.tick_params(length=0)
    return figure, axes


def _name_line(axes: Axes, point: tuple[float, float], text: str, color: str) -> None:
    axes.annotate(text, point, (5, 0), textcoords="offset points", va="center", color=color, fontweight="bold")


def _data_uri(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
