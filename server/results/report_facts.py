"""Facts about a finished run for the report and the model card."""

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from confide.common.config.run import RunConfig, make_plan
from confide.common.flower import versions
from confide.common.model.scores import Accuracy
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.statement import statement
from confide.common.tensors import State
from confide.server.results.run_directory import RunDirectory, spent
from confide.server.rounds.roster import Institution


def as_json(accuracy: Accuracy | None) -> dict[str, Any] | None:
    """Return an accuracy for JSON; None stays None."""
    return accuracy.as_json() if accuracy else None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        released: the exponential average of the global adapter.
        accuracy: accuracy of `released` on the public test shares; None if there are none.
        institutions: the final state of each.
        bytes_per_client_round: size of one update as sent, without envelope and signature.
    """

    released: State
    accuracy: Accuracy | None
    institutions: list[Institution]
    bytes_per_client_round: int


def report_facts(run: RunConfig, directory: RunDirectory, result: Outcome, *, simulated: bool) -> dict[str, Any]:
    """Return the facts about a finished run that `write_report` and `export_adapter` need."""
    plan = make_plan(run, run.local.nominal_units)
    private = isinstance(plan, PrivacyPlan)
    so_far = partial(_epsilon_after, run, result)
    rounds = directory.rounds()
    return {
        "title": run.study.name,
        "status": "completed",
        "simulated": simulated,
        "own_data": False,
        "run": run.model_dump(mode="json"),
        "run_dir_name": directory.path.name,
        "rounds": [
            {
                "round": line["round"],
                "accuracy": line.get("accuracy", {}).get("mean"),
                "per_institution": line.get("accuracy", {}).get("per_institution"),
                "epsilon": so_far(line) if private and "accuracy" in line else None,
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
                "accuracy": result.accuracy.per_institution.get(item.name) if result.accuracy else None,
            }
            for item in result.institutions
        ],
        "target_epsilon": run.privacy.target_epsilon,
        "target_delta": run.privacy.target_delta,
        "plan": asdict(plan) if private else {"no_privacy": True, **asdict(plan)},
        "bytes_per_client_round": result.bytes_per_client_round,
        "accuracy": as_json(result.accuracy),
        "validation": _last_validation(run, rounds),
        "versions": versions(),
        "statement": statement(plan) if isinstance(plan, PrivacyPlan) else None,
    }


def _epsilon_after(run: RunConfig, result: Outcome, line: dict[str, Any]) -> dict[str, float | None]:
    """Return epsilon by institution after the round of a line of metrics.jsonl."""
    steps, releases = line["num_steps"], line["num_releases"]
    return {
        item.name: spent(run, replace(item, num_steps=steps[item.name], num_releases=releases[item.name]))
        for item in result.institutions
        if item.name in steps
    }


def _last_validation(run: RunConfig, rounds: list[dict[str, Any]]) -> dict[str, Any] | None:
    lines = [line for line in rounds if "validation" in line]
    noise = run.evaluation.validation_noise_multiplier
    return {"round": lines[-1]["round"], "noise": noise, "counts": lines[-1]["validation"]} if lines else None


def card_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that `export_adapter` asks for."""
    names = ("status", "accuracy", "institutions", "simulated", "versions", "plan", "statement")
    return {"num_rounds": len(facts["rounds"]), **{name: facts[name] for name in names}}
