"""`confide simulate`: its typer declaration. torch and Flower are imported only when they are needed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from confide.common.folders import require_new
from confide.simulations.commands.interruption import interruptible

if TYPE_CHECKING:
    from confide.common.config.run import RunConfig
    from confide.simulations.sites.real_sites import RealSites
    from confide.simulations.studies.begun import Begun

RunArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[RUN.toml]", help="the run, or a scenario's name as in docs/tasks.md [default]"),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="change one setting; may be repeated")
]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object on standard output, and nothing else")]
EngineOption = Annotated[
    Literal["in-process", "ray"], typer.Option(help="in-process, or Flower's Ray engine (RAY_ADDRESS)")
]


OutOption = Annotated[Path | None, typer.Option(metavar="DIR", help="run directory, new or empty [runs/DATE-NAME]")]
SiteOption = Annotated[
    list[Path] | None,
    typer.Option(metavar="SITE.toml", help="train with a real site, and charge its ledger; may be repeated"),
]
BaselinesOption = Annotated[
    bool,
    typer.Option(
        "--baselines",
        help="also run, to compare: each alone; without privacy; all data together, or all of the noise from each",
    ),
]
ResumeOption = Annotated[
    Path | None, typer.Option("--resume", metavar="DIR", help="continue an interrupted simulation")
]


def simulate(  # noqa: PLR0913 - one parameter an option
    run_file: RunArgument = None,
    clients: Annotated[int | None, typer.Option(min=1, help="number of institutions")] = None,
    overrides: SetOption = None,
    out: OutOption = None,
    engine: EngineOption = "in-process",
    baselines: BaselinesOption = False,
    site: SiteOption = None,
    resume: ResumeOption = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="print nothing but errors and warnings")] = False,
) -> None:
    """Run a whole federation on this machine.

    Every institution trains with differential privacy on its own records; the server averages. The run directory
    holds the adapter, a report, and privacy.json with the epsilon that each institution spent. Paths in RUN.toml count
    from its folder. Paths in options count from the folder in which the command runs.
    """
    from confide.simulations.studies.prepared import load

    with interruptible(lambda: "nothing had begun"):
        if resume:
            _require_alone(run=run_file, clients=clients, set=overrides, out=out)
            begun = _gone_on_with(resume, engine, site, baselines=baselines)
        else:
            settings = [*(overrides or []), *([f"simulation.clients={clients}"] if clients else [])]
            if out:
                require_new(out)
            begun = _begun(load(run_file, settings), out, engine, site, baselines=baselines)
    from rich.console import Console

    from confide.simulations.commands.ending import closing, tell_refusals
    from confide.simulations.interface.shown import carry_out_shown

    console = Console(stderr=as_json, soft_wrap=True, markup=False, highlight=False)
    with interruptible(lambda: begun.how_to_go_on(site or [], baselines=baselines)):
        summary = carry_out_shown(begun, engine, console, baselines=baselines, quiet=quiet)
    run = begun.run
    if as_json:
        typer.echo(json.dumps(summary))
    elif not quiet:
        console.print(closing(run, summary))
    if begun.sites:
        tell_refusals(run, begun.sites, begun.directory.rounds()[-1]["accepted"])


def _begun(run: "RunConfig", out: Path | None, engine: str, site: list[Path] | None, *, baselines: bool) -> "Begun":
    """Begin a new simulation. Slow parts (seconds for noise and model) come after all checks that are instant."""
    from confide.simulations.studies.prepared import check_simulation, locked, simulated

    sites = _real_sites(run, site, engine, baselines=baselines) if site else None
    if sites is None:
        check_simulation(run, _warn)
        run = simulated(run)
    from confide.simulations.studies.begun import begin
    from confide.simulations.studies.remembered import Checked

    return begin(locked(run, Checked()), out, engine, sites)


def _gone_on_with(path: Path, engine: str, site: list[Path] | None, *, baselines: bool) -> "Begun":
    """Go on with an interrupted simulation."""
    from confide.simulations.studies.begun import go_on, require_interrupted
    from confide.simulations.studies.prepared import check_simulation, load

    kept = require_interrupted(path, engine, real_sites=bool(site))
    run = load(path / "run.lock.toml", [], kept.places)
    sites = _real_sites(run, site, engine, baselines=baselines) if site else None
    if sites is None:
        check_simulation(run, _warn)
    return go_on(run, path, kept, sites)


def _require_alone(**given: object) -> None:
    """Refuse other settings beside ``--resume``: an interrupted run goes on as it was locked."""
    from confide.common.errors import InputError

    words = [f"--{name}" if name != "run" else "a run.toml" for name, value in given.items() if value]
    if words:
        raise InputError(f"--resume with {' and '.join(words)} is refused: the run goes on as run.lock.toml has it")


def _warn(line: str) -> None:
    typer.echo(f"warning: {line}", err=True)


def _real_sites(run: "RunConfig", paths: list[Path], engine: str, *, baselines: bool) -> "RealSites":
    """Open the real sites of a run, and name the budgets that it is about to spend."""
    from confide.common.errors import InputError
    from confide.server.rounds.participation import check_quorum
    from confide.simulations.sites.real_sites import open_sites, read_public_test, require_lines, warning

    if baselines:
        raise InputError("--baselines with --site is refused: baselines train on private records without privacy")
    if engine != "in-process":
        raise InputError(f"--engine {engine} with --site is refused: a ledger belongs to one machine; leave it out")
    read_public_test(run)  # bad data show before anything is charged or written
    sites = open_sites(paths)
    check_quorum(run.federation, len(sites.names))
    require_lines(sites, run)
    for line in warning(sites, run):
        typer.echo(line, err=True)
    return sites
