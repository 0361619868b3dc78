"""A run carried out with its progress on a terminal or in a notebook."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

from rich.console import Console

from confide.common.config.run import RunConfig
from confide.common.model.devices import peak_memory
from confide.server.results.progress import show
from confide.server.results.report_facts import epsilon_of
from confide.server.results.tracking import track
from confide.server.rounds.run_context import Event
from confide.simulations.studies.begun import Begun
from confide.simulations.studies.study import Study, carry_out

OnEvent = Callable[[Event], None]


def carry_out_shown(
    begun: Begun, engine: str, console: Console, *, baselines: bool, quiet: bool, on_event: OnEvent | None = None
) -> dict[str, Any]:
    """Carry out a run, show its progress, and return its summary (`carry_out`).

    Args:
        begun: the run.
        engine: "in-process" or "ray".
        console: for progress.
        baselines: also run the comparisons.
        quiet: show nothing.
        on_event: gets every event, after the run directory has it.
    """
    run = begun.run

    def tell(line: str) -> None:
        if not quiet:
            console.print(line)

    tracking = run.simulation.tracking if run.simulation else "none"
    tell(opening(run))
    tell("loading the base model, and trying a step of each size")
    memory = peak_memory if engine == "in-process" else None  # of workers this process sees none
    with (
        begun.kept.alone() if begun.kept else nullcontext(),
        show(run, partial(epsilon_of, run), console, quiet=quiet, memory=memory) as display,
        track(run, begun.directory.path, tracking, partial(epsilon_of, run)) as curves,
    ):

        def emit(event: Event) -> None:
            display(event)
            curves(event)
            if on_event:
                on_event(event)

        study = Study(run, begun.directory, engine, emit, tell, begun.sites, begun.kept)
        return carry_out(study, baselines=baselines)


def opening(run: RunConfig) -> str:
    """Return the line that a run begins with: rounds, steps, noise, and what epsilon they give."""
    if run.privacy.unit == "none":
        return f"{run.study.name}: {run.federation.num_rounds} rounds WITHOUT PRIVACY (privacy.unit = none)"
    return (
        f"{run.study.name}: {run.federation.num_rounds} rounds, {run.num_steps} private steps, noise multiplier "
        f"{run.privacy.noise_multiplier}, epsilon at most {run.privacy.target_epsilon:g} at delta "
        f"{run.privacy.target_delta:g} for each {run.privacy.unit}"
        + (f", if at most {run.privacy.max_colluding} of a sum's members collude" if run.privacy.grid_bits else "")
    )
