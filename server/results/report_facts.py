"""Facts about a finished run for the report and the model card."""

from dataclasses import asdict
from typing import Any

from confide.common.config.run import RunConfig, make_plan
from confide.common.flower import versions
from confide.common.model.scores import Scores
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.statement import statement
from confide.server.results.run_directory import RunDirectory, spent, spent_if_broken
from confide.server.rounds.roster import Institution
from confide.server.rounds.run_context import Event, RunState


def as_json(scores: Scores | None) -> dict[str, Any] | None:
    """Return scores for JSON; None stays None."""
    return scores.as_json() if scores else None


def report_facts(
    directory: RunDirectory, state: RunState, *, simulated: bool, one_machine: bool = False
) -> dict[str, Any]:
    """Return the facts about a finished run that `write_report` and `export_adapter` need.

    ``one_machine`` is True for real institutions that all ran on one.
    """
    run = state.job.run
    plan = make_plan(run, run.local.nominal_units)
    private = isinstance(plan, PrivacyPlan)
    rounds = directory.rounds()
    return {
        "title": run.study.name,
        "status": "completed",
        "simulated": simulated,
        "one_machine": one_machine,
        "own_data": False,
        "run": run.model_dump(mode="json"),
        "run_dir_name": directory.path.name,
        "rounds": [
            {
                **{name: line[name] for name in ("round", "accepted", "dropped", "seconds")},
                "score": line.get("score", {}).get("mean"),
                "per_institution": line.get("score", {}).get("per_institution"),
                "epsilon": epsilon_of(run, line) if private and "score" in line else None,
                "ended": line.get("time"),
            }
            for line in rounds
        ],
        "institutions": [_part_of(item, state) for item in state.everybody()],
        "target_epsilon": run.privacy.target_epsilon,
        "target_delta": run.privacy.target_delta,
        "plan": asdict(plan) if private else {"no_privacy": True, "sharing": None, **asdict(plan)},
        "bytes_per_client_round": state.bytes_per_client_round,
        "metric": run.task.headline,
        "score": as_json(state.scores),
        "validation": _last_validation(run, rounds),
        "ended": rounds[-1].get("time") if rounds else None,
        "speed": _speed(rounds),
        "versions": versions(),
        "audit": last_audit(directory),
        "statement": statement(plan) if isinstance(plan, PrivacyPlan) else None,
    }


def _part_of(item: Institution, state: RunState) -> dict[str, Any]:
    """Return what an institution did in a run, and what it spent."""
    run = state.job.run
    return {
        "name": item.name,
        "declared_units": item.declared_units,
        "epsilon": spent(run, item),
        "epsilon_if_broken": spent_if_broken(run, item),
        "num_steps": item.num_steps,
        "rounds": item.accepted,
        "accepted_in": [number for number, reason in item.outcomes.items() if reason is None],
        "dropped": item.dropped,
        "score": state.scores.per_institution.get(item.name) if state.scores else None,
    }


def epsilon_of(run: RunConfig, event: Event) -> dict[str, float]:
    """Return epsilon by institution after the round of an event; none without privacy. Sizes do not change it."""
    plan = make_plan(run, run.local.nominal_units)
    if not isinstance(plan, PrivacyPlan):
        return {}
    return {name: epsilon(plan, steps, event["num_releases"][name]) for name, steps in event["num_steps"].items()}


def last_audit(directory: RunDirectory) -> dict[str, Any] | None:
    """Return the audit that a run's events record; None without one."""
    found = [event for event in directory.events() if event["event"] == "audited"]
    return {name: found[-1][name] for name in ("confidence", "canaries", "observers")} if found else None


def _speed(rounds: list[dict[str, Any]]) -> float | None:
    """Return the units that all together are expected to draw in a second; the first round, which encodes, if alone.

    >>> _speed([{"expected_units": 8, "seconds": 9.0}, {"expected_units": 8, "seconds": 2.0}]), _speed([])
    (4.0, None)
    """
    counted = rounds[1:] or rounds
    seconds = sum(line["seconds"] for line in counted)
    return sum(line["expected_units"] for line in counted) / seconds if seconds else None


def _last_validation(run: RunConfig, rounds: list[dict[str, Any]]) -> dict[str, Any] | None:
    lines = [line for line in rounds if "validation" in line]
    noise = run.evaluation.validation_noise_multiplier
    return {"round": lines[-1]["round"], "noise": noise, "counts": lines[-1]["validation"]} if lines else None


def card_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that `export_adapter` asks for."""
    about = ("status", "metric", "score", "institutions", "simulated", "one_machine", "versions")
    private = ("plan", "statement", "audit")
    return {"num_rounds": len(facts["rounds"]), **{name: facts[name] for name in (*about, *private)}}
