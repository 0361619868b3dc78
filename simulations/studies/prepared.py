"""A run made ready for this machine: its file or a scenario's, its base model, its noise, its data."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path

from confide.common.config.accountant import Accountant
from confide.common.config.run import RunConfig, load_run, lock
from confide.common.config.sections import SECURE_SUM
from confide.common.flower import prepare


def load(run_file: Path | None, overrides: list[str], places: Mapping[str, str] | None = None) -> RunConfig:
    """Load a run.toml, or a scenario, and fetch its base model."""
    from confide.common.model.base_models import fetch_model

    run = load_run(file_of(run_file), overrides).placed(places or {})
    prepare()
    fetch_model(run.at(run.model.base))
    return run


def file_of(named: Path | None) -> Path:
    """Return the file of a run, or of a scenario that carries this name; without a name of the default scenario."""
    scenario = Path(str(files("confide.simulations").joinpath(f"scenarios/{named or 'default'}.toml")))
    return scenario if named is None or (scenario.is_file() and not named.exists()) else named


def simulated(run: RunConfig) -> RunConfig:
    """Return a run with the institutions that its simulation has, if they sign the members of a secure sum."""
    if run.federation.aggregation != SECURE_SUM or run.simulation is None:
        return run
    from confide.simulations.data.institutions import load_institutions
    from confide.simulations.sites.members import with_members

    return with_members(run, load_institutions(run).private)


def planned(run: RunConfig) -> RunConfig:
    """Return a run with as many institutions as its simulation has, for a plan of it.

    No data are read where `simulation.clients` is their number: an account depends on how many institutions sign, and
    on nothing else about them. Institutions that the run names are believed; a simulation compares them with its data.
    With the natural partition only the data tell how many there are.
    """
    settings = run.simulation
    if run.federation.aggregation != SECURE_SUM or settings is None or settings.partition == "natural":
        return simulated(run)
    from confide.simulations.data.partition import numbered_names
    from confide.simulations.sites.members import with_members

    return with_members(run, run.study.institutions or numbered_names(settings.clients))


def locked(run: RunConfig, accountant: Accountant) -> RunConfig:
    """Return the same run with its noise, which takes some seconds to find, and its base model's hash."""
    from confide.common.export.start import with_start
    from confide.common.model.base_models import fetch_model, hash_model
    from confide.common.model.families import with_targets

    base = fetch_model(run.at(run.model.base))
    return lock(with_start(with_targets(run, base)), hash_model(base), accountant)


def check_simulation(run: RunConfig, warn: Callable[[str], None]) -> None:
    """Read the data of `[simulation]`, give warnings about them, and check what is cheap to check before a run."""
    from confide.common.protocol.gate import size_problem
    from confide.server.results.tracking import require_tracker
    from confide.server.rounds.participation import check_quorum
    from confide.simulations.data.institutions import load_institutions
    from confide.simulations.sites.simulated_sites import declared_by

    require_tracker(run.simulation.tracking if run.simulation else "none")
    institutions = load_institutions(run)
    for warning in institutions.warnings:
        warn(warning)
    check_quorum(run.federation, len(institutions.private))
    sizes = [declared_by(run, records) for records in institutions.private.values()]
    if left_out := [problem for size in sizes if (problem := size_problem(size, run.local.nominal_units))]:
        warn(f"a server would leave out {len(left_out)} of {len(sizes)} institutions: {left_out[0]}")
