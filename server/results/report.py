"""The page report.html about one run. It refers to nothing outside the file."""

import math
import time
from decimal import ROUND_CEILING, Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from confide.common.model.scores import is_percent, score_text
from confide.common.pages.pictures import Line, Points, curve, squares
from confide.common.pages.rendering import templates
from confide.server.results.findings import BASELINES, findings, score_of

_MOST_CURVES = 60  # of institutions, one beside the other


def write_report(path: Path, facts: dict[str, Any]) -> None:
    """Write a run's report.

    Args:
        path: the HTML file.
        facts: all public, or the user's own in a simulation.
            ``title``, ``status``, ``run_dir_name``: str. ``simulated``, ``own_data``: bool.
            ``one_machine``: bool, True for real institutions that all ran on one; may be absent.
            ``run``: ``RunConfig.model_dump(mode="json")`` of the locked run. ``versions``: name to version.
            ``plan``: fields of the `PrivacyPlan`, or ``{"no_privacy": True}``.
            ``target_epsilon``, ``target_delta``: float. ``bytes_per_client_round``: int, one update as sent.
            ``metric``: name of the task's headline. ``score``: `Scores.as_json`, or None if nothing was measured.
            ``rounds``: each ``round``, ``score`` (mean, or None), ``per_institution`` (name to score, or None),
            ``epsilon`` (name to epsilon so far, or None), ``accepted`` (number), ``dropped`` (list of str),
            ``seconds``, ``ended`` (seconds since 1970, or None).
            ``institutions``: each ``name``, ``declared_units``, ``epsilon`` (or None), ``epsilon_if_broken`` (or None),
            ``num_steps``, ``rounds`` (accepted), ``accepted_in`` (their numbers), ``dropped`` (list of str), ``score``
            (or None).
            ``validation``: the last one of the run: ``round``, ``noise`` (standard deviation), ``counts``
            (name to ``right`` and ``wrong``, noised); may be absent or None.
            ``baselines``: by the names of `findings.BASELINES`, each `Scores.as_json`; each may be absent.
            ``samples``: texts of public test records, `evaluation.samples`; may be absent.
            ``look``: `closer_look` of the finished adapter on the test records; may be absent or None.
            ``earlier``: `earlier_scores` of the finished adapter; may be absent or None.
            ``ended``: seconds since 1970; may be absent or None. ``speed``: units a second, or None.
            ``memory``: the most that the training process took, in words; may be absent or None.
            ``audit``: `report_facts.last_audit`; may be absent or None.
            ``attacked``: the ``sentence`` and the ``shadow_runs`` of attacks on the finished adapter; may be absent or
            None.
            ``statement``: `statement.statement` of the plan; may be absent or None; then its numbers are left out.

    Raises:
        KeyError, jinja2.UndefinedError: a fact is missing.
    """
    facts = {
        "one_machine": False,
        "baselines": None,
        "statement": None,
        "validation": None,
        "samples": [],
        "look": None,
        "earlier": None,
        "audit": None,
        "attacked": None,
        "ended": None,
        "memory": None,
        **facts,
    }
    environment = templates("confide.server.results").overlay()
    environment.filters = environment.filters | {
        "percent": _percent,
        "score": score_of,
        "epsilon": _epsilon,
        "number": _number,
        "size": _size,
        "setting": _setting,
        "ranges": _ranges,
        "second": _second,
    }
    spent = [row["epsilon"] for row in facts["institutions"] if row["epsilon"] is not None]
    style = files("confide.common.pages").joinpath("style.css").read_text(encoding="utf-8")
    text = environment.get_template("report.html").render(
        facts,
        style=Markup(style),  # noqa: S704 - our own file
        private="no_privacy" not in facts["plan"],
        epsilon=max(spent, default=None),
        epsilon_if_broken=max((row["epsilon_if_broken"] or 0.0 for row in facts["institutions"]), default=None),
        findings=findings(facts),
        baseline_names=BASELINES,
        score_curve=_score_curve(facts),
        epsilon_curve=_epsilon_curve(facts),
        own_curves=_own_curves(facts),
        found=_found(facts["statement"]),
        classes=_classes(facts["look"]),
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


def _ranges(numbers: list[int]) -> str:
    """Return numbers as ranges.

    >>> _ranges([4, 1, 2, 3, 6]), _ranges([])
    ('1–4, 6', '–')
    """
    ordered, known = sorted(numbers), set(numbers)
    firsts = [number for number in ordered if number - 1 not in known]
    lasts = [number for number in ordered if number + 1 not in known]
    parts = (f"{first}–{last}" if first < last else f"{first}" for first, last in zip(firsts, lasts, strict=True))
    return ", ".join(parts) or "–"


def _second(moment: float | None) -> str:
    return "–" if moment is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))


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


def _score_curve(facts: dict[str, Any]) -> dict[str, Any] | None:
    """Return the curve of the mean score over rounds, with the words of its axes."""
    points = [(float(row["round"]), row["score"]) for row in facts["rounds"] if row["score"] is not None]
    if not points:
        return None
    low, high = _ends([value for _, value in points], facts["metric"])
    title = f"Line chart of {facts['metric']} over rounds; the last value is {score_of(points[-1][1], facts['metric'])}"
    return _framed([Line(points)], facts, (low, high), title, [score_text(facts["metric"], end) for end in (high, low)])


def _own_curves(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the score of each institution over rounds, on one scale; none without two rounds, or of too many."""
    measured = [row for row in facts["rounds"] if row["per_institution"]]
    names = sorted({name for row in measured for name in row["per_institution"]})
    if len(measured) < 2 or not 2 <= len(names) <= _MOST_CURVES:
        return []
    metric = facts["metric"]
    ends = _ends([value for row in measured for value in row["per_institution"].values()], metric)
    mean: Points = [(float(row["round"]), row["score"]) for row in measured]
    curves = []
    for name in names:
        own = [
            (float(row["round"]), row["per_institution"][name]) for row in measured if name in row["per_institution"]
        ]
        title = f"{name}: line chart of {metric}, at last {score_of(own[-1][1], metric)}; thin, the mean of all"
        picture = curve([Line(mean, "thin"), Line(own)], (0, _last_round(facts)), ends, title)
        curves.append({"name": name, "picture": picture, "last": own[-1][1]})
    return curves


def _epsilon_curve(facts: dict[str, Any]) -> dict[str, Any] | None:
    """Return the curve of the most epsilon that any institution has spent, below the line of the target."""
    most = [(float(row["round"]), max(row["epsilon"].values())) for row in facts["rounds"] if row["epsilon"]]
    if not most:
        return None
    target = facts["target_epsilon"]
    high = 1.1 * max(target, most[-1][1])
    limit = Line([(0.0, target), (_last_round(facts), target)], "limit")
    title = f"Line chart of epsilon over rounds; the most is {_epsilon(most[-1][1])}, the target {_number(target)}"
    return _framed([limit, Line([(0.0, 0.0), *most])], facts, (0.0, high), title, [_epsilon(high), "0"])


def _framed(
    lines: list[Line], facts: dict[str, Any], ends: tuple[float, float], title: str, y: list[str]
) -> dict[str, Any]:
    return {"picture": curve(lines, (0, _last_round(facts)), ends, title), "y": y, "last": int(_last_round(facts))}


def _last_round(facts: dict[str, Any]) -> float:
    return float(max(row["round"] for row in facts["rounds"]))


def _ends(values: list[float], metric: str) -> tuple[float, float]:
    """Return the ends of an axis: shares go to the next tenth, and equal values stand in the middle."""
    low, high = min(values), max(values)
    if is_percent(metric):
        return math.floor(low * 10) / 10, max(math.ceil(high * 10) / 10, math.floor(low * 10) / 10 + 0.1)
    room = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    return low - room, high + room


def _found(statement: dict[str, Any] | None) -> Markup | None:
    """Return a hundred people of the data, of whom the bound on an attacker is filled."""
    if statement is None:
        return None
    rate = statement["true_positive_rate"]
    return squares(rate, f"A hundred members, of whom an attacker recognises at most {math.ceil(1000 * rate) / 10}")


def _classes(look: dict[str, Any] | None) -> list[tuple[str, dict[str, float]]]:
    """Return the metrics of each part, as of a label, by its name."""
    parts: dict[str, dict[str, float]] = {}
    for name, value in (look or {}).get("metrics", {}).items():
        metric, _, part = name.partition("/")
        if part:
            parts.setdefault(part, {})[metric] = value
    return list(parts.items())
