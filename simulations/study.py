"""From a run.toml to a finished run directory: what `confide simulate` does between its options and its output."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from confide.common.config.run import RunConfig, make_plan
from confide.common.errors import BudgetError, ConfideError, LedgerError, PolicyError
from confide.common.model.scores import Accuracy
from confide.common.privacy.plan import PrivacyPlan
from confide.server.results.report_facts import Outcome, as_json, card_facts, report_facts
from confide.server.results.run_directory import RunDirectory, spent
from confide.server.rounds.checkpoint import load_last, save_round
from confide.server.rounds.resume import Resumed
from confide.server.rounds.run_context import Event
from confide.server.rounds.strategy import ConfideStrategy
from confide.simulations.baselines import run_baselines
from confide.simulations.federation import Federation, Sites, outcome, simulate, start
from confide.simulations.grid import SkippingClock
from confide.simulations.institutions import load_institutions, load_private
from confide.simulations.real_sites import RehearsedSites, read_public_test
from confide.simulations.sites import simulated_sites
from confide.simulations.texts import SOURCES
from confide.simulations.unfinished import Unfinished


@dataclass(frozen=True)
class Study:
    """A run on this machine.

    Attributes:
        run: locked.
        directory: where it leaves everything.
        engine: "in-process" or "ray".
        emit: is told of every event, besides the directory.
        tell: is told of what is done outside the rounds.
        sites: real ones, in a rehearsal; None: those of `[simulation]`.
        kept: to go on from after an interruption; None: that is not possible.
    """

    run: RunConfig
    directory: RunDirectory
    engine: str
    emit: Callable[[Event], None]
    tell: Callable[[str], None]
    sites: RehearsedSites | None = None
    kept: Unfinished | None = None

    @property
    def local(self) -> Path:
        """Where simulated sites keep their tracebacks; real ones keep them at home."""
        return self.directory.path / "local"


def carry_out(study: Study, *, baselines: bool) -> dict[str, Any]:
    """Run the federation, its baselines, and write the results.

    Returns:
        What ``--json`` prints.

    Raises:
        PolicyError, BudgetError: too few institutions remain, because of policies or budgets. A rehearsal that was
            refused before anybody was asked leaves no folder.
        ConfideError: too few remain for another reason. The directory then says where the run stopped.
        KeyboardInterrupt: the same.
    """
    began = time.monotonic()
    federation, strategy = _federation(study), None
    try:
        strategy = start(federation, _clock(study.engine))
        _simulate(study.engine, federation, strategy)
        result = outcome(strategy)
        federation.emit({"event": "federation_finished", "accuracy": as_json(result.accuracy)})
        compared = run_baselines(federation, study.local, study.tell) if baselines else None
        return _finish(study, result, compared, began)
    except KeyboardInterrupt:
        _stop(study, strategy, "interrupted")
        raise
    except ConfideError as error:
        _stop(study, strategy, "stopped")
        if study.sites and not any("what" in event for event in study.directory.events()):
            shutil.rmtree(study.directory.path)  # nobody was asked or charged, and each reason is in its own log
        raise explained(error, federation.sites.refused, study.local) from None
    except BaseException:
        _stop(study, strategy, "failed")
        raise


def _federation(study: Study) -> Federation:
    """The federation of a study, from where an interruption has left it."""
    run, directory, kept = study.run, study.directory, study.kept
    outbox = kept.outbox() if kept else None

    def emit(event: Event) -> None:
        directory.record(event)
        if outbox and event["event"] == "round":
            outbox.clear()
        study.emit(event)

    def save(number: int, state: Any, accepted: list[dict[str, str]], lineage: str) -> None:
        save_round(directory.path / "rounds", number, state, accepted, lineage)

    sites: Sites = study.sites or simulated_sites(run, load_private, study.local, kept)
    public = read_public_test(run) if study.sites else load_institutions(run).public
    federation = Federation(run, sites, public, emit, save)
    if kept is None:
        return federation
    saved, damaged = load_last(directory.path / "rounds", kept.lineage)
    resumed = Resumed(saved, damaged, directory.institutions(run), directory.rounds())
    return replace(federation, lineage=kept.lineage, resumed=resumed)


def explained(error: ConfideError, refused: dict[str, ConfideError], local: Path | None = None) -> ConfideError:
    """A failure with the refusals behind it. On a real network they stay with the institutions; here all are ours."""
    kinds = [type(reason) for reason in refused.values()]
    kind = next((kind for kind in (BudgetError, PolicyError, LedgerError) if kind in kinds), type(error))
    lines = [f"{error}", *(f"  {name!r}: {reason}" for name, reason in refused.items())]
    if local and local.exists():
        lines.append(f"  tracebacks: {local}")
    return kind("\n".join(lines))


def _clock(engine: str) -> Any:
    from confide.server.rounds.collect import SystemClock

    return SkippingClock() if engine == "in-process" else SystemClock()


def _simulate(engine: str, federation: Federation, strategy: ConfideStrategy) -> None:
    if engine == "in-process":
        simulate(federation, strategy)
        return
    from confide.simulations.ray import simulate_on_ray

    simulate_on_ray(federation, strategy)


def _stop(study: Study, strategy: ConfideStrategy | None, status: str) -> None:
    """Say where the run stopped, and what it had cost by then."""
    study.directory.record({"event": status, "after_round": strategy.round if strategy else 0})
    study.directory.write_privacy(status, study.run, strategy.everybody() if strategy else [], simulated=True)


def _finish(study: Study, result: Outcome, compared: dict[str, Accuracy] | None, began: float) -> dict[str, Any]:
    from confide.common.export.write import export_adapter
    from confide.common.model.warm_model import warm_model
    from confide.server.results.report import write_report

    run, directory = study.run, study.directory
    facts = report_facts(run, directory, result, simulated=True)
    facts["own_data"] = bool(not study.sites and run.simulation and run.simulation.data not in SOURCES)
    facts["baselines"] = {name: accuracy.as_json() for name, accuracy in compared.items()} if compared else None
    model = warm_model(run, run.speed.device, run.speed.precision)
    export_adapter(directory.path / "adapter", run, model, result.released, card_facts(facts))
    write_report(directory.path / "report.html", facts)
    # Last: it says that all is here.
    directory.write_privacy("completed", run, result.institutions, simulated=True, baselines=compared is not None)
    seconds = round(time.monotonic() - began, 1)
    directory.record({"event": "completed", "seconds": seconds})
    if study.kept:
        study.kept.end()
    plan = make_plan(run, run.local.nominal_units)
    summary: dict[str, Any] = {
        "run_dir": str(directory.path),
        "status": "completed",
        "num_rounds": run.federation.num_rounds,
        "seconds": seconds,
        "accuracy": as_json(result.accuracy),
        "epsilon": {item.name: spent(run, item) for item in result.institutions},
        "target_delta": run.privacy.target_delta,
        "bytes_per_client_round": result.bytes_per_client_round,
        "num_steps": run.num_steps,
        "noise_multiplier": plan.noise_multiplier if isinstance(plan, PrivacyPlan) else None,
    }
    if compared:
        summary["baselines"] = {name: accuracy.as_json() for name, accuracy in compared.items()}
    return summary
