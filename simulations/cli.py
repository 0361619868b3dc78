"""`confide simulate` and `confide plan`: typer declarations; torch and Flower are imported when they start to work."""

import json
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from confide.common.run_config import RunConfig
    from confide.simulations.rehearsal import RehearsedSites

RunArgument = Annotated[
    Path | None, typer.Argument(metavar="[RUN.toml]", help="the run; without it the default scenario")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="change one setting; may be repeated")
]
JsonOption = Annotated[bool, typer.Option("--json", help="one JSON object on standard output, nothing else there")]
EngineOption = Annotated[
    Literal["in-process", "ray"], typer.Option(help="in-process, or Flower's Ray engine (RAY_ADDRESS)")
]


def simulate(  # noqa: PLR0913 - one parameter an option
    run_file: RunArgument = None,
    clients: Annotated[int | None, typer.Option(min=1, help="number of institutions")] = None,
    overrides: SetOption = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="new or empty [runs/DATE-NAME]")] = None,
    engine: EngineOption = "in-process",
    baselines: Annotated[
        bool, typer.Option("--baselines", help="also without privacy, central, and each institution alone")
    ] = False,
    site: Annotated[
        list[Path] | None,
        typer.Option(metavar="SITE.toml", help="rehearse with a real site, its ledger included; may be repeated"),
    ] = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="no progress")] = False,
) -> None:
    """Run a whole federation on this machine.

    Every institution trains with differential privacy on its own records; the server averages. The run directory
    holds the adapter, a report, and privacy.json with what each institution spent. Paths in RUN.toml count from its
    folder, those of options from the folder in which the command runs.
    """
    settings = [*(overrides or []), *([f"simulation.clients={clients}"] if clients else [])]
    run = _locked(run_file, settings)
    from rich.console import Console

    from confide.common.warm_model import warm_model
    from confide.server.progress import show
    from confide.server.run_directory import RunDirectory
    from confide.simulations.study import Study, carry_out

    console = Console(stderr=as_json, soft_wrap=True, markup=False, highlight=False)
    sites = _rehearsed(run, site, engine, baselines=baselines) if site else None
    if sites is None:
        _check_simulation(run)
    # Whatever is wrong with the model shows before there is a run directory.
    warm_model(run, run.speed.device, run.speed.precision)
    directory = RunDirectory(out or _free_folder(f"{time.strftime('%Y%m%d-%H%M%S')}-{run.study.name}"), run)

    def tell(line: str) -> None:
        if not quiet:
            console.print(line)

    tell(_opening(run))
    try:
        with show(run, lambda event: _epsilon(run, event), console, quiet=quiet, memory=_memory(engine)) as emit:
            summary = carry_out(Study(run, directory, engine, emit, tell, sites), baselines=baselines)
    except KeyboardInterrupt:
        typer.echo(f"confide: interrupted; {directory.path}/events.jsonl says after which round", err=True)
        sys.exit(130)
    if as_json:
        typer.echo(json.dumps(summary))
    elif not quiet:
        console.print(_closing(run, summary))
    if sites:
        _tell_refusals(run, sites, directory.rounds()[-1]["accepted"])


def _free_folder(name: str) -> Path:
    """``runs/NAME``, or with a number behind it where runs of the same second have taken that."""
    from confide.common.errors import InputError

    number, path = 1, Path("runs") / name
    while True:
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            number += 1
            path = path.with_name(f"{name}-{number}")
        except OSError as error:
            raise InputError(f"{path} cannot be made: {error.strerror}; choose a folder with --out") from None
        else:
            return path


def _tell_refusals(run: "RunConfig", sites: "RehearsedSites", accepted: int) -> None:
    """Who refused in a rehearsal that has finished; an error where the last round had too few for that."""
    from confide.common.errors import ConfideError
    from confide.simulations.study import explained

    if accepted < run.federation.min_clients:
        reason = ConfideError("the last rounds had too few institutions; the results are of the rounds before")
        raise explained(reason, sites.refused)
    for name, error in sites.refused.items():
        typer.echo(f"warning: {name!r} refused at least once: {error}", err=True)


def plan(
    run_file: RunArgument = None,
    overrides: SetOption = None,
    noise_multiplier: Annotated[
        float | None, typer.Option(min=0.1, help="the reverse question: what this noise gives")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="also time and memory, from 20 local steps on synthetic texts")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What a run costs and gives, before any data is touched."""
    settings = [*(overrides or []), *([f"privacy.noise_multiplier={noise_multiplier}"] if noise_multiplier else [])]
    run = _locked(run_file, settings)
    from confide.common.errors import InputError
    from confide.simulations.plan import measure as measure_steps
    from confide.simulations.plan import plan_facts

    try:
        facts = plan_facts(run)
    except ValueError as error:
        raise InputError(str(error)) from None
    if measure:
        facts |= measure_steps(run)
    typer.echo(json.dumps(facts) if as_json else _plan_text(run, facts))


def _locked(run_file: Path | None, overrides: list[str]) -> "RunConfig":
    from confide.common.flower import prepare
    from confide.common.models import fetch_model, hash_model
    from confide.common.run_config import load_run, lock

    path = run_file or Path(str(files("confide.simulations").joinpath("scenarios/default.toml")))
    run = load_run(path, overrides)
    prepare()
    return lock(run, hash_model(fetch_model(run.at(run.model.base))))


def _check_simulation(run: "RunConfig") -> None:
    """Read the data of `[simulation]`, tell what is odd about them, and see that they are enough."""
    from confide.server.participation import check_quorum
    from confide.simulations.institutions import load_institutions

    institutions = load_institutions(run)
    for warning in institutions.warnings:
        typer.echo(f"warning: {warning}", err=True)
    check_quorum(run.federation, len(institutions.private))


def _rehearsed(run: "RunConfig", paths: list[Path], engine: str, *, baselines: bool) -> "RehearsedSites":
    """Open the sites of a rehearsal, and say whose budget it is about to spend."""
    from confide.common.errors import InputError
    from confide.server.participation import check_quorum
    from confide.simulations.rehearsal import open_sites, read_public_test, require_lines, warning

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
    """What the display asks for peak memory: nothing where workers train, for this process does not see theirs."""
    from confide.common.devices import peak_memory

    return peak_memory if engine == "in-process" else None


def _epsilon(run: "RunConfig", event: dict[str, Any]) -> dict[str, float]:
    """Epsilon by institution after the round of an event."""
    from confide.server.roster import Institution
    from confide.server.run_directory import spent

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
    )


def _closing(run: "RunConfig", summary: dict[str, Any]) -> str:
    from confide.server.progress import up

    accuracy = summary["accuracy"] or {"per_institution": {}}
    mean = f"{accuracy['mean']:.1%}" if "mean" in accuracy else "not measured: evaluation.data names no file"
    lines = [f"accuracy on the public test shares: {mean}"]
    for name, epsilon in summary["epsilon"].items():
        share = f"{accuracy['per_institution'][name]:.1%}" if name in accuracy["per_institution"] else ""
        privacy = "no privacy" if epsilon is None else f"epsilon {up(epsilon)} at delta {summary['target_delta']:g}"
        lines.append(f"  {name}: {share:>6}  {privacy}")
    for name, baseline in summary.get("baselines", {}).items():
        lines.append(f"  baseline {name.replace('_', ' ')}: {baseline['mean']:.1%}")
    lines.append(f"{summary['bytes_per_client_round']:,} bytes from each institution in each round")
    lines.append(f"{summary['seconds']:.0f} s; report: {summary['run_dir']}/report.html")
    return "\n".join(lines)


def _plan_text(run: "RunConfig", facts: dict[str, Any]) -> str:
    lines = [
        f"{run.study.name}: {facts['num_steps']} steps, each {run.privacy.unit} drawn with probability "
        f"{facts['sampling_probability']:g}, noise multiplier {facts['noise_multiplier']}",
        f"  epsilon {facts['epsilon']} at delta {facts['target_delta']:g} (PLD; RDP says {facts['epsilon_rdp']})",
        f"  {facts['signal_to_noise_share']:.0%} of the best possible signal-to-noise ratio at this epsilon",
        f"  {facts['bytes_per_client_round']:,} bytes from each institution in each round",
    ]
    if "seconds_per_round" in facts:
        lines.append(
            f"  {facts['seconds_per_round']} s for a round of one institution, "
            f"peak memory {facts['peak_memory_mb']:.0f} MB, on this machine"
        )
    lines += ["", "  epsilon   noise   signal share   attacker finds at most (at 1 % false alarms)"]
    lines += [
        f"  {row['epsilon']:7g} {row['noise_multiplier']:7.3f} {row['signal_to_noise_share']:13.0%} "
        f"{row['attack_true_positive_rate']:19.2%}"
        for row in facts["table"]
    ]
    return "\n".join(lines)
