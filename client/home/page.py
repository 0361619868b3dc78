"""The comparison of the ways to an adapter as text for a terminal, and as a page that refers to nothing outside it."""

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import jinja2

from confide.client.home.comparison import ALONE, BASE, FEDERATED, PERSONALISED, Comparison, Difference
from confide.common.model.scores import is_percent, score_text

WAYS = {
    BASE: "the base model with an untrained adapter",
    ALONE: "an adapter of your own, trained on your records only, without noise (it never leaves), in as many steps",
    FEDERATED: "the shared adapter that the server gave out",
    PERSONALISED: "the shared adapter, trained on at home: not private, never leaves",
}
_VERDICTS = {
    (FEDERATED, ALONE): ("Federating helped", "Federating did not help"),
    (FEDERATED, BASE): ("The shared adapter learnt something", "The shared adapter is worse than none"),
    (PERSONALISED, FEDERATED): ("Personalising helped", "Personalising did not help"),
}


def as_text(comparison: Comparison, head: dict[str, str]) -> str:
    """Return head, table and verdicts as text; the ends of an interval stand below its headline."""
    rows = [["", *(way.name for way in comparison.ways)], *table(comparison)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{name}: {value}" for name, value in head.items()] + [""]
    for first, *cells in rows:
        padded = (f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        lines.append(f"{first:<{widths[0]}}" + "".join(padded))
    lines += ["", *(f"{way.name}: {WAYS[way.name]}" for way in comparison.ways), "", *verdicts(comparison)]
    return "\n".join(lines)


def as_page(comparison: Comparison, head: dict[str, str]) -> str:
    """Return the same as an HTML page."""
    pages = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = pages.from_string(files("confide.client.home").joinpath("comparison.html").read_text(encoding="utf-8"))
    told: list[tuple[str, str]] = [(way.name, WAYS[way.name]) for way in comparison.ways]
    return template.render(
        head=head, metric=comparison.metric, ways=told, rows=table(comparison), verdicts=verdicts(comparison)
    )


def table(comparison: Comparison) -> list[list[str]]:
    """Return a row for each metric, the headline and its interval first: its name, then a cell for each way."""
    metric, ways = comparison.metric, comparison.ways
    others = [name for name in dict.fromkeys(name for way in ways for name in way.metrics) if name != metric]
    ends = [f"{score_text(metric, way.interval.low)} to {score_text(metric, way.interval.high)}" for way in ways]
    return [
        [metric, *(score_text(metric, way.metrics[metric]) for way in ways)],
        ["  95 % interval", *ends],
        *([name, *(_cell(name, way.metrics) for way in ways)] for name in others),
    ]


def verdicts(comparison: Comparison) -> list[str]:
    """Return a sentence for each difference, the question "did federating help?" first."""
    return list(_verdicts(comparison))


def _verdicts(comparison: Comparison) -> Iterator[str]:
    for each in comparison.differences:
        values = {way.name: score_text(comparison.metric, way.metrics[comparison.metric]) for way in comparison.ways}
        reached = f"{each.one} {values[each.one]}, {each.other} {values[each.other]}"
        if each.is_chance:
            yield (
                f"{each.one.capitalize()} or {each.other}: within chance (p = {each.chance:.2f}). "
                f"{comparison.num_records} held-out records cannot tell them apart: {reached}."
            )
        else:
            yes, no = _VERDICTS[each.one, each.other]
            told = f"{reached}, {_amount(comparison.metric, each)}"
            yield f"{yes if each.gain > 0 else no}: {told} (p = {each.chance:.3f})."


def _amount(metric: str, difference: Difference) -> str:
    size = abs(difference.gain)
    amount = f"{100 * size:.1f} points" if is_percent(metric) else f"{size:.3f}"
    return f"{amount} {'better' if difference.gain > 0 else 'worse'}"


def _cell(name: str, metrics: dict[str, Any]) -> str:
    return score_text(name, metrics[name]) if name in metrics else "–"
