"""The last lines of `confide simulate`."""

from typing import Any

import typer

from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError
from confide.common.model.scores import score_text
from confide.server.results.findings import BASELINES, personalising
from confide.server.results.progress import conditions, round_up_to_cents
from confide.simulations.sites.real_sites import RealSites
from confide.simulations.studies.study import explained

_MOST_LINES = 8  # of institutions on a terminal


def closing(run: RunConfig, summary: dict[str, Any]) -> str:
    """Return the results as text for a person."""
    metric, mean = run.task.headline, (summary["score"] or {}).get("mean")
    reached = score_text(metric, mean) if mean is not None else "not measured: evaluation.data names no file"
    lines = [f"{metric} on the public test shares: {reached}"]
    if mean is not None and "baselines" in summary:
        lines = [f"{metric} on the public test shares", *_compared(metric, mean, summary["baselines"])]
        if home := summary["baselines"].get("personalised"):
            lines.append(personalising(metric, summary["score"], home))
    lines += _of_each(run, summary) if len(summary["epsilon"]) <= _MOST_LINES else [_of_many(run, summary)]
    lines.append(f"{summary['bytes_per_client_round']:,} bytes from each institution in each round")
    lines.append(f"{summary['seconds']:.0f} s; report: {summary['run_dir']}/report.html")
    return "\n".join(lines)


def _compared(metric: str, mean: float, baselines: dict[str, Any]) -> list[str]:
    """Return a line for each way to train, the least first."""
    ways = {"this run": mean, **{BASELINES[name]: baseline["mean"] for name, baseline in baselines.items()}}
    width = max(map(len, ways))
    ordered = sorted(ways.items(), key=lambda way: way[1])
    return [f"  {name:<{width}}  {score_text(metric, value):>6}" for name, value in ordered]


def _of_each(run: RunConfig, summary: dict[str, Any]) -> list[str]:
    """Return a line for each institution."""
    metric = run.task.headline
    shares, lines = (summary["score"] or {"per_institution": {}})["per_institution"], []
    for name, epsilon in summary["epsilon"].items():
        share = score_text(metric, shares[name]) if name in shares else ""
        broken = summary.get("epsilon_if_broken", {}).get(name)
        privacy = "no privacy" if epsilon is None else f"{_spent(epsilon)} at delta {summary['target_delta']:g}"
        lines.append(f"  {name}: {share:>6}  {privacy}{conditions(run, broken)}")
    return lines


def _of_many(run: RunConfig, summary: dict[str, Any]) -> str:
    """Return the extremes of many institutions in one line; the report has a line for each."""
    shares = (summary["score"] or {"per_institution": {}})["per_institution"]
    text = f"{len(summary['epsilon'])} institutions"
    if len(shares) > 1:
        order = sorted(shares, key=lambda name: shares[name])
        least, most = (f"{score_text(run.task.headline, shares[name])} ({name})" for name in (order[0], order[-1]))
        text += f" from {least} to {most}"
    spent = [epsilon for epsilon in summary["epsilon"].values() if epsilon is not None]
    if not spent:
        return f"{text}; no privacy"
    text += f"; {_spent(max(spent))} at most for each, at delta {summary['target_delta']:g}"
    return text + conditions(run, max(summary.get("epsilon_if_broken", {}).values(), default=None))


def _spent(epsilon: float) -> str:
    return f"epsilon {round_up_to_cents(epsilon)}"


def tell_refusals(run: RunConfig, sites: RealSites, accepted: int) -> None:
    """Name the real sites that refused in a finished run; raise an error if the last round had too few."""
    if accepted < run.federation.min_clients:
        reason = ConfideError("the last rounds had too few institutions; the results are of the rounds before")
        raise explained(reason, sites.refused)
    for name, error in sites.refused.items():
        typer.echo(f"warning: {name!r} refused at least once: {error}", err=True)
