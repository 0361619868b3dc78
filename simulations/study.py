"""From a run.toml to a finished run directory: what `confide simulate` does between its options and its output."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from confide.common.accuracy import Accuracy
from confide.common.errors import ConfideError, InputError
from confide.common.flower import versions
from confide.common.privacy.accounting import attack_true_positive_rate
from confide.common.privacy.plan import PrivacyPlan
from confide.common.run_config import RunConfig, make_plan
from confide.server.checkpoint import save_round
from confide.server.run_directory import RunDirectory, spent
from confide.server.strategy import ConfideStrategy, Event
from confide.simulations.baselines import run_baselines
from confide.simulations.federation import Federation, Outcome, outcome, simulate, start
from confide.simulations.grid import SkippingClock
from confide.simulations.institutions import load_institutions, load_private
from confide.simulations.texts import SOURCES


@dataclass(frozen=True)
class Study:
    """A run on this machine.

    Attributes:
        run: locked.
        directory: where it leaves everything.
        engine: "in-process" or "ray".
        emit: is told of every event, besides the directory.
        tell: is told of what is done outside the rounds.
    """

    run: RunConfig
    directory: RunDirectory
    engine: str
    emit: Callable[[Event], None]
    tell: Callable[[str], None]


def carry_out(study: Study, *, baselines: bool) -> dict[str, Any]:
    """Run the federation, its baselines, and write the results.

    Returns:
        What ``--json`` prints.

    Raises:
        ConfideError: too few institutions; the directory then says where the run stopped.
        KeyboardInterrupt: the same.
    """
    began = time.monotonic()
    run, directory = study.run, study.directory
    institutions = load_institutions(run)

    def emit(event: Event) -> None:
        directory.record(event)
        study.emit(event)

    def save(number: int, state: Any, accepted: list[dict[str, str]], lineage: str) -> None:
        save_round(directory.path / "rounds", number, state, accepted, lineage)

    federation = Federation(run, load_private, institutions.public, directory.path / "local", emit, save)
    strategy = None
    try:
        strategy = start(federation, _clock(study.engine))
        _simulate(study.engine, federation, strategy)
        result = outcome(strategy)
        emit({"event": "federation_finished", "accuracy": result.accuracy.as_json()})
        compared = run_baselines(federation, study.tell) if baselines else None
        return _finish(study, result, compared, began)
    except KeyboardInterrupt:
        _stop(study, strategy, "interrupted")
        raise
    except ConfideError as error:
        _stop(study, strategy, "stopped")
        hint = f"; tracebacks: {federation.local}" if federation.local.exists() else ""
        raise type(error)(f"{error}{hint}") from None
    except BaseException:
        _stop(study, strategy, "failed")
        raise


def check_quorum(run: RunConfig, num_institutions: int) -> None:
    """Whether the institutions are enough for the run; `InputError` before anything is written."""
    if run.federation.min_clients > num_institutions:
        raise InputError(
            f"federation.min_clients = {run.federation.min_clients}, but the simulation has {num_institutions} "
            "institutions; lower it or use more institutions"
        )


def _clock(engine: str) -> Any:
    from confide.server.rounds import SystemClock

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
    institutions = list(strategy.institutions.values()) if strategy else []
    study.directory.write_privacy(status, study.run, institutions, simulated=True)


def _finish(study: Study, result: Outcome, compared: dict[str, Accuracy] | None, began: float) -> dict[str, Any]:
    from confide.common.export import export_adapter
    from confide.common.warm_model import warm_model
    from confide.server.report import write_report

    run, directory = study.run, study.directory
    facts = _report_facts(study, result, compared)
    model = warm_model(run, run.speed.device)
    export_adapter(directory.path / "adapter", run, model, result.released, _card_facts(facts))
    write_report(directory.path / "report.html", facts)
    # Last: it says that all is here.
    directory.write_privacy("completed", run, result.institutions, simulated=True, baselines=compared is not None)
    seconds = round(time.monotonic() - began, 1)
    directory.record({"event": "completed", "seconds": seconds})
    plan = make_plan(run, run.local.nominal_units)
    summary: dict[str, Any] = {
        "run_dir": str(directory.path),
        "status": "completed",
        "num_rounds": run.federation.num_rounds,
        "seconds": seconds,
        "accuracy": result.accuracy.as_json(),
        "epsilon": {item.name: spent(run, item) for item in result.institutions},
        "target_delta": run.privacy.target_delta,
        "bytes_per_client_round": result.bytes_per_client_round,
        "num_steps": run.num_steps,
        "noise_multiplier": plan.noise_multiplier if isinstance(plan, PrivacyPlan) else None,
    }
    if compared:
        summary["baselines"] = {name: accuracy.as_json() for name, accuracy in compared.items()}
    return summary


def _report_facts(study: Study, result: Outcome, compared: dict[str, Accuracy] | None) -> dict[str, Any]:
    run = study.run
    plan = make_plan(run, run.local.nominal_units)
    private = isinstance(plan, PrivacyPlan)
    per_step = partial(_epsilon_after, run, result)
    rounds = study.directory.rounds()
    return {
        "title": run.study.name,
        "status": "completed",
        "simulated": True,
        "own_data": bool(run.simulation and run.simulation.data not in SOURCES),
        "run": run.model_dump(mode="json"),
        "run_dir_name": study.directory.path.name,
        "rounds": [
            {
                "round": line["round"],
                "accuracy": line.get("accuracy", {}).get("mean"),
                "per_institution": line.get("accuracy", {}).get("per_institution"),
                "epsilon": per_step(line["num_steps"]) if private and "accuracy" in line else None,
                "accepted": line["accepted"],
                "dropped": line["dropped"],
                "seconds": line["seconds"],
            }
            for line in rounds
        ],
        "institutions": [
            {
                "name": item.name,
                "declared_units": item.declared_units,
                "epsilon": spent(run, item),
                "num_steps": item.num_steps,
                "rounds": item.accepted,
                "dropped": item.dropped,
                "accuracy": result.accuracy.per_institution.get(item.name),
            }
            for item in result.institutions
        ],
        "target_epsilon": run.privacy.target_epsilon,
        "target_delta": run.privacy.target_delta,
        "plan": asdict(plan) if private else {"no_privacy": True, **asdict(plan)},
        "bytes_per_client_round": result.bytes_per_client_round,
        "accuracy": result.accuracy.as_json(),
        "baselines": {name: accuracy.as_json() for name, accuracy in compared.items()} if compared else None,
        "versions": versions(),
        "attack_true_positive_rate": attack_true_positive_rate(plan, 0.01) if isinstance(plan, PrivacyPlan) else None,
    }


def _epsilon_after(run: RunConfig, result: Outcome, num_steps: dict[str, int]) -> dict[str, float | None]:
    return {
        item.name: spent(run, replace(item, num_steps=num_steps[item.name]))
        for item in result.institutions
        if item.name in num_steps
    }


def _card_facts(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "status": facts["status"],
        "num_rounds": len(facts["rounds"]),
        "accuracy": facts["accuracy"],
        "institutions": facts["institutions"],
        "simulated": True,
        "versions": facts["versions"],
        "plan": facts["plan"],
    }
