"""simulate, plan, evaluate and predict as functions."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from confide.common.data.records import MAX_CHARS, Record, check_records
from confide.common.export.load import load_adapter
from confide.common.model.evaluation import all_metrics
from confide.simulations.interface.given import Data, Rows, Run, read_run, rows_of, with_data
from confide.simulations.interface.result import Result, predicted
from confide.simulations.interface.shown import OnEvent, carry_out_shown
from confide.simulations.studies.begun import begin
from confide.simulations.studies.plan import plan_facts
from confide.simulations.studies.prepared import check_simulation, locked, simulated
from confide.simulations.studies.remembered import Checked, Remembered

log = logging.getLogger("confide")


def simulate(  # noqa: PLR0913 - as many as the command has options
    run: Run = None,
    data: Data = None,
    *,
    changes: Iterable[str] = (),
    out: str | Path | None = None,
    baselines: bool = False,
    engine: Literal["in-process", "ray"] = "in-process",
    quiet: bool = False,
    on_event: OnEvent | None = None,
) -> Result:
    """Run a whole federation on this machine.

    Args:
        run: path of a run.toml, name of a scenario, dictionary of its sections, or a `RunConfig`; None is the default
            scenario.
        data: a `datasets.Dataset`, a list of dictionaries or a table, which `[simulation]` divides among institutions;
            a dictionary of these by institution; or a `DatasetDict` with "train" and "test". None: the run's own.
        changes: settings to change, as of ``--set``.
        out: run directory, new or empty; None makes one below runs/.
        baselines: also run the comparisons.
        engine: this process, or Ray.
        quiet: show no progress.
        on_event: a function that gets every event of the run as a dictionary.

    Raises:
        InputError: the run, the data or the folder are bad; the message names value, rule and remedy.

    Example::

        result = simulate("reviews", changes=["federation.num_rounds=2"])
        result.epsilon, result.history
    """
    files = (Path(out).absolute().parent if out else Path("runs").absolute()) / "data"
    given = with_data(read_run(run, changes), data, files)
    check_simulation(given, _warn)
    ready = locked(simulated(given), Checked())
    begun = begin(ready, Path(out) if out else None, engine, None)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    summary = carry_out_shown(begun, engine, console, baselines=baselines, quiet=quiet, on_event=on_event)
    return Result(begun.run, begun.directory.path, summary)


def plan(run: Run = None, data: Data = None, *, changes: Iterable[str] = ()) -> dict[str, Any]:
    """Return the cost and the privacy of a run before any data are touched: the object of ``confide plan --json``.

    Records are read only to learn which institutions share the noise.
    """
    given = simulated(with_data(read_run(run, changes), data, Path("runs").absolute() / "data"))
    target = None if given.privacy.noise_multiplier else given.privacy.target_epsilon
    return plan_facts(locked(given, Remembered()), target)


def predict(folder: str | Path, inputs: Iterable[str | Record]) -> list[Any]:
    """Return the prediction of an exported adapter, or of a run directory, for each text or record."""
    return predicted(load_adapter(Path(folder))[1], inputs)


def evaluate(folder: str | Path, records: Rows) -> dict[str, float]:
    """Return every metric of an exported adapter, or of a run directory, on records with their right answers."""
    _, model = load_adapter(Path(folder))
    rows, warnings = check_records(rows_of(records), model.task, MAX_CHARS, "records")
    _warn(*warnings)
    return all_metrics(model, rows)


def _warn(*lines: str) -> None:
    for line in lines:
        log.warning(line)
