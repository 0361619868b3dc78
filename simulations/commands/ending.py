"""The last lines of `confide simulate`."""

from typing import Any

import typer

from confide.common.config.run import RunConfig
from confide.common.errors import ConfideError
from confide.common.model.scores import score_text
from confide.server.results.progress import round_up_to_cents
from confide.simulations.sites.real_sites import RealSites
from confide.simulations.studies.study import explained


def closing(run: RunConfig, summary: dict[str, Any]) -> str:
    """Return the results as text for a person."""
    metric, scores = run.task.headline, summary["score"] or {"per_institution": {}}
    mean = score_text(metric, scores["mean"]) if "mean" in scores else "not measured: evaluation.data names no file"
    lines = [f"{metric} on the public test shares: {mean}"]
    for name, epsilon in summary["epsilon"].items():
        share = score_text(metric, scores["per_institution"][name]) if name in scores["per_institution"] else ""
        privacy = (
            "no privacy"
            if epsilon is None
            else f"epsilon {round_up_to_cents(epsilon)} at delta {summary['target_delta']:g}"
        )
        broken = summary.get("epsilon_if_broken", {}).get(name)
        privacy += f", {round_up_to_cents(broken)} if all others collude" if broken is not None else ""
        lines.append(f"  {name}: {share:>6}  {privacy}")
    for name, baseline in summary.get("baselines", {}).items():
        lines.append(f"  baseline {name.replace('_', ' ')}: {score_text(metric, baseline['mean'])}")
    lines.append(f"{summary['bytes_per_client_round']:,} bytes from each institution in each round")
    lines.append(f"{summary['seconds']:.0f} s; report: {summary['run_dir']}/report.html")
    return "\n".join(lines)


def tell_refusals(run: RunConfig, sites: RealSites, accepted: int) -> None:
    """Name the real sites that refused in a finished run; raise an error if the last round had too few."""
    if accepted < run.federation.min_clients:
        reason = ConfideError("the last rounds had too few institutions; the results are of the rounds before")
        raise explained(reason, sites.refused)
    for name, error in sites.refused.items():
        typer.echo(f"warning: {name!r} refused at least once: {error}", err=True)
