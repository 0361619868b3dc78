"""From a run.toml to a finished run directory: the work of `confide simulate` between its options and its output."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from confide.common.config.run import RunConfig, make_plan
from confide.common.errors import BudgetError, ConfideError, LedgerError, PolicyError
from confide.common.model.scores import Scores
from confide.common.privacy.plan import PrivacyPlan
from confide.common.training.optimizer import GlobalState
from confide.server.results.report_facts import as_json, card_facts, report_facts
from confide.server.results.run_directory import RunDirectory, spent, spent_if_broken
from confide.server.rounds.checkpoint import load_last, save_round
from confide.server.rounds.collect import Clock, SystemClock
from confide.server.rounds.resume import Resumed
from confide.server.rounds.run_context import Event, RunState
from confide.server.rounds.statements import FileStatements
from confide.simulations.data.institutions import load_institutions, load_private
from confide.simulations.data.texts import SOURCES
from confide.simulations.engines.federation import Federation, Sites, simulate, start
from confide.simulations.engines.grid import SkippingClock
from confide.simulations.sites.between_workers import BetweenWorkers
from confide.simulations.sites.real_sites import RealSites, read_public_test
from confide.simulations.sites.simulated_sites import simulated_sites
from confide.simulations.sites.unfinished import Unfinished
from confide.simulations.studies.baselines import run_baselines


@dataclass(frozen=True)
class Study:
    """A run on this machine.

    Attributes:
        run: locked.
        directory: holds all files of the run.
        engine: "in-process" or "ray".
        emit: gets every event, besides the directory.
        tell: gets a line about each task outside the rounds.
        sites: the real sites; None: those of `[simulation]`.
        kept: state from which to go on after an interruption; None: that is not possible.
    """

    run: RunConfig
    directory: RunDirectory
    engine: str
    emit: Callable[[Event], None]
    tell: Callable[[str], None]
    sites: RealSites | None = None
    kept: Unfinished | None = None

    @property
    def local(self) -> Path:
        """The folder of simulated sites' tracebacks; real sites keep theirs in their own folders."""
        return self.directory.path / "local"

    def between_workers(self) -> BetweenWorkers | None:
        """Return what Ray's workers share: an institution's next answer may be another worker's, with its ledger."""
        return BetweenWorkers(self.directory.path / "workers") if self.engine == "ray" and not self.sites else None


def carry_out(study: Study, *, baselines: bool) -> dict[str, Any]:
    """Run the federation and its baselines, and write the results.

    Returns:
        The object that ``--json`` prints.

    Raises:
        PolicyError, BudgetError: too few institutions remain, because of policies or budgets. A run with real sites
            that was refused before any institution was asked leaves no folder.
        ConfideError: too few remain for another reason. The directory then says where the run stopped.
        KeyboardInterrupt: the user interrupted the run. The directory says where it stopped.
    """
    began = time.monotonic()
    federation: Federation | None = None
    try:
        federation = _federation(study)
        state = start(federation, _clock(study.engine))
        _simulate(study.engine, federation, state)
        federation.emit({"event": "federation_finished", "score": as_json(state.scores)})
        compared = run_baselines(federation, state.trained.average, study.local, study.tell) if baselines else None
        return _finish(study, state, federation.public, compared, began)
    except KeyboardInterrupt:
        _stop(study, "interrupted")
        raise
    except ConfideError as error:
        _stop(study, "stopped")
        if study.sites and not any("what" in event for event in study.directory.events()):
            shutil.rmtree(study.directory.path)  # no site was asked or charged, and each has the reason in its log
        raise explained(error, federation.sites.refused if federation else {}, study.local) from None
    except BaseException:
        _stop(study, "failed")
        raise


def _federation(study: Study) -> Federation:
    """Return the federation of a study, resumed where an interruption stopped it."""
    run, directory, kept = study.run, study.directory, study.kept
    places = kept or study.between_workers()
    open_round = [places.outbox(), places.shares()] if places else []

    def emit(event: Event) -> None:
        directory.record(event)
        for box in open_round if event["event"] == "round" else []:
            box.clear()
        study.emit(event)

    def save(number: int, state: GlobalState, accepted: list[dict[str, str]], lineage: str) -> None:
        save_round(directory.path / "rounds", number, state, accepted, lineage)

    if run.evaluation.earlier:
        from confide.common.scoring.earlier import read_earlier

        read_earlier(run, run.evaluation.earlier)  # its faults show before anybody is charged
    sites: Sites = study.sites or simulated_sites(run, load_private, study.local, places)
    public = read_public_test(run) if study.sites else load_institutions(run).public
    federation = Federation(
        run, sites, public, emit, save, statements=FileStatements(directory.path / "rounds/statements")
    )
    if kept is None:
        return federation
    saved, damaged = load_last(directory.path / "rounds", kept.lineage)
    resumed = Resumed(saved, damaged, directory.institutions(run), directory.rounds())
    return replace(federation, lineage=kept.lineage, resumed=resumed)


def explained(error: ConfideError, refused: dict[str, ConfideError], local: Path | None = None) -> ConfideError:
    """Return a failure with the refusals behind it. In a real network these stay with the institutions."""
    kinds = [type(reason) for reason in refused.values()]
    kind = next((kind for kind in (BudgetError, PolicyError, LedgerError) if kind in kinds), type(error))
    lines = [f"{error}", *(f"  {name!r}: {reason}" for name, reason in refused.items())]
    if local and local.exists():
        lines.append(f"  tracebacks: {local}")
    return kind("\n".join(lines))


def _clock(engine: str) -> Clock:
    return SkippingClock() if engine == "in-process" else SystemClock()


def _simulate(engine: str, federation: Federation, state: RunState) -> None:
    if engine == "in-process":
        simulate(federation, state)
        return
    from confide.simulations.engines.ray import simulate_on_ray

    simulate_on_ray(federation, state)


def _stop(study: Study, status: str) -> None:
    """Record where the run stopped, and the epsilon of all asks in its events: a resumed run may stop before any."""
    directory = study.directory
    institutions = list(directory.institutions(study.run).values())
    directory.record({"event": status, "after_round": max((line["round"] for line in directory.rounds()), default=0)})
    directory.write_privacy(status, study.run, institutions, simulated=study.sites is None)


def _seen(study: Study, model: Any, state: RunState, tested: dict[str, list[Any]]) -> dict[str, Any]:
    """Return what of closer look and earlier task can be scored, for the report; a line tells the user the rest."""
    from confide.common.scoring.closer_look import closer_look
    from confide.common.scoring.earlier import earlier_scores, read_earlier

    run, adapter, facts = study.run, state.trained.average, dict[str, Any]()
    try:
        facts["look"] = closer_look(model, run, adapter, tested)
    except (ConfideError, ValueError, ArithmeticError, RuntimeError) as error:
        study.tell(f"the report has no closer look at the test records: {error}")
    try:
        facts["earlier"] = earlier_scores(model, run, adapter, read_earlier(run, run.evaluation.earlier))
    except (ConfideError, ValueError, ArithmeticError, RuntimeError) as error:  # its file may be gone by now
        study.tell(f"the report has no scores on the earlier task: {error}")
    return facts


def _finish(
    study: Study, state: RunState, tested: dict[str, list[Any]], compared: dict[str, Scores] | None, began: float
) -> dict[str, Any]:
    from confide.common.export.write import export_adapter
    from confide.common.model.devices import peak_memory
    from confide.common.model.evaluation import samples
    from confide.common.model.warm_model import warm_model
    from confide.simulations.studies.reported import keep_report

    run, directory = study.run, study.directory
    facts = report_facts(directory, state, simulated=study.sites is None, one_machine=study.sites is not None)
    facts["own_data"] = bool(not study.sites and run.simulation and run.simulation.data not in SOURCES)
    facts["baselines"] = {name: scores.as_json() for name, scores in compared.items()} if compared else None
    facts["memory"] = peak_memory() if study.engine == "in-process" and not study.sites else None
    model = warm_model(run, run.speed)
    public = bool(study.sites or run.evaluation.data or not facts["own_data"])
    records = [record for share in tested.values() for record in share] if public else []
    facts["samples"] = samples(model, state.trained.average, records)
    export_adapter(directory.path / "adapter", run, model, state.trained.average, card_facts(facts))
    facts |= _seen(study, model, state, tested)
    keep_report(directory.path, facts)
    # Last: it tells readers that all other files are there.
    directory.write_privacy(
        "completed", run, state.everybody(), simulated=study.sites is None, baselines=compared or ()
    )
    seconds = round(time.monotonic() - began, 1)
    directory.record({"event": "completed", "seconds": seconds})
    if study.kept:
        study.kept.end()
    if workers := study.between_workers():
        shutil.rmtree(workers.folder, ignore_errors=True)
    plan = make_plan(run, run.local.nominal_units)
    summary: dict[str, Any] = {
        "run_dir": str(directory.path),
        "status": "completed",
        "num_rounds": run.federation.num_rounds,
        "seconds": seconds,
        "score": as_json(state.scores),
        "epsilon": {item.name: spent(run, item) for item in state.everybody()},
        "target_delta": run.privacy.target_delta,
        "bytes_per_client_round": state.bytes_per_client_round,
        "num_steps": run.num_steps,
        "noise_multiplier": plan.noise_multiplier if isinstance(plan, PrivacyPlan) else None,
    }
    if isinstance(plan, PrivacyPlan) and plan.sharing is not None:
        summary["epsilon_if_broken"] = {item.name: spent_if_broken(run, item) for item in state.everybody()}
    if compared:
        summary["baselines"] = {name: scores.as_json() for name, scores in compared.items()}
    return summary
