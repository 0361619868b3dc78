"""`confide simulate`: its typer declaration. torch and Flower are imported only when they are needed."""

import json
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from confide.common.folders import require_new
from confide.simulations.commands.interruption import interruptible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confide.common.config.accountant import Accountant
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
    typer.Option("--baselines", help="also run without privacy, with all data together, and each institution alone"),
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
    quiet: Annotated[bool, typer.Option("--quiet", help="show no progress")] = False,
) -> None:
    """Run a whole federation on this machine.

    Every institution trains with differential privacy on its own records; the server averages. The run directory
    holds the adapter, a report, and privacy.json with the epsilon that each institution spent. Paths in RUN.toml count
    from its folder. Paths in options count from the folder in which the command runs.
    """
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

    from confide.server.results.progress import show
    from confide.simulations.commands.ending import closing, tell_refusals
    from confide.simulations.studies.study import Study, carry_out

    console = Console(stderr=as_json, soft_wrap=True, markup=False, highlight=False)
    run = begun.run

    def tell(line: str) -> None:
        if not quiet:
            console.print(line)

    tell(_opening(run))
    with (
        interruptible(lambda: begun.how_to_go_on(site or [], baselines=baselines)),
        begun.kept.alone() if begun.kept else nullcontext(),
        show(run, lambda event: _epsilon(run, event), console, quiet=quiet, memory=_memory(engine)) as emit,
    ):
        study = Study(run, begun.directory, engine, emit, tell, begun.sites, begun.kept)
        summary = carry_out(study, baselines=baselines)
    if as_json:
        typer.echo(json.dumps(summary))
    elif not quiet:
        console.print(closing(run, summary))
    if begun.sites:
        tell_refusals(run, begun.sites, begun.directory.rounds()[-1]["accepted"])


def _begun(run: "RunConfig", out: Path | None, engine: str, site: list[Path] | None, *, baselines: bool) -> "Begun":
    """Begin a new simulation. Slow parts (seconds for noise and model) come after all checks that are instant."""
    sites = _real_sites(run, site, engine, baselines=baselines) if site else None
    if sites is None:
        _check_simulation(run)
        run = simulated(run)
    from confide.simulations.studies.begun import begin
    from confide.simulations.studies.remembered import Checked

    return begin(locked(run, Checked()), out, engine, sites)


def simulated(run: "RunConfig") -> "RunConfig":
    """Return a run with the institutions that its simulation has, if they sign the members of a secure sum."""
    from confide.common.config.sections import SECURE_SUM

    if run.federation.aggregation != SECURE_SUM or run.simulation is None:
        return run
    from confide.simulations.data.institutions import load_institutions
    from confide.simulations.sites.members import with_members

    return with_members(run, load_institutions(run).private)


def _gone_on_with(path: Path, engine: str, site: list[Path] | None, *, baselines: bool) -> "Begun":
    """Go on with an interrupted simulation."""
    from confide.simulations.studies.begun import go_on, require_interrupted

    kept = require_interrupted(path, engine, real_sites=bool(site))
    run = load(path / "run.lock.toml", [], kept.places)
    sites = _real_sites(run, site, engine, baselines=baselines) if site else None
    if sites is None:
        _check_simulation(run)
    return go_on(run, path, kept, sites)


def _require_alone(**given: object) -> None:
    """Refuse other settings beside ``--resume``: an interrupted run goes on as it was locked."""
    from confide.common.errors import InputError

    words = [f"--{name}" if name != "run" else "a run.toml" for name, value in given.items() if value]
    if words:
        raise InputError(f"--resume with {' and '.join(words)} is refused: the run goes on as run.lock.toml has it")


def load(run_file: Path | None, overrides: list[str], places: "Mapping[str, str] | None" = None) -> "RunConfig":
    """Load a run.toml, or a scenario, and fetch its base model."""
    from confide.common.config.run import load_run
    from confide.common.flower import prepare
    from confide.common.model.base_models import fetch_model

    run = load_run(_run_file(run_file), overrides).placed(places or {})
    prepare()
    fetch_model(run.at(run.model.base))
    return run


def _run_file(named: Path | None) -> Path:
    """Return the file of a run, or of a scenario that carries this name; without a name of the default scenario."""
    scenario = Path(str(files("confide.simulations").joinpath(f"scenarios/{named or 'default'}.toml")))
    return scenario if named is None or (scenario.is_file() and not named.exists()) else named


def locked(run: "RunConfig", accountant: "Accountant") -> "RunConfig":
    """Return the same run with its noise, which takes some seconds to find, and its base model's hash."""
    from confide.common.config.run import lock
    from confide.common.export.start import with_start
    from confide.common.model.base_models import fetch_model, hash_model
    from confide.common.model.families import with_targets

    base = fetch_model(run.at(run.model.base))
    return lock(with_start(with_targets(run, base)), hash_model(base), accountant)


def _check_simulation(run: "RunConfig") -> None:
    """Read the data of `[simulation]`, print warnings about them, and check that the institutions are enough."""
    from confide.server.rounds.participation import check_quorum
    from confide.simulations.data.institutions import load_institutions

    institutions = load_institutions(run)
    for warning in institutions.warnings:
        typer.echo(f"warning: {warning}", err=True)
    check_quorum(run.federation, len(institutions.private))


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


def _memory(engine: str) -> "Callable[[], str] | None":
    """Return the display's source of peak memory; None if workers train, whose memory this process does not see."""
    from confide.common.model.devices import peak_memory

    return peak_memory if engine == "in-process" else None


def _epsilon(run: "RunConfig", event: dict[str, Any]) -> dict[str, float]:
    """Return epsilon by institution after the round of an event."""
    from confide.server.results.run_directory import spent
    from confide.server.rounds.roster import Institution

    values = {}
    for name, steps in event["num_steps"].items():
        asked = Institution(name, run.local.nominal_units, num_steps=steps, num_releases=event["num_releases"][name])
        values[name] = spent(run, asked)
    return {name: value for name, value in values.items() if value is not None}


def _opening(run: "RunConfig") -> str:
    if run.privacy.unit == "none":
        return f"{run.study.name}: {run.federation.num_rounds} rounds WITHOUT PRIVACY (privacy.unit = none)"
    return (
        f"{run.study.name}: {run.federation.num_rounds} rounds, {run.num_steps} private steps, noise multiplier "
        f"{run.privacy.noise_multiplier}, epsilon at most {run.privacy.target_epsilon:g} at delta "
        f"{run.privacy.target_delta:g} for each {run.privacy.unit}"
        + (f", if at most {run.privacy.max_colluding} of a sum's members collude" if run.privacy.grid_bits else "")
    )
