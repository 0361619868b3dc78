"""What a run's results contribute to a model card."""

from dataclasses import asdict
from typing import Any

from confide.common.config.run import RunConfig, make_plan
from confide.common.privacy.plan import PrivacyPlan


def make_statement(unit: str = "record", **changes: Any) -> dict[str, Any]:
    """The numbers of the default plan: q = 0.1, noise multiplier 1.274, 40 steps."""
    return {
        "epsilon": 2.9999,
        "false_positive_rate": 0.01,
        "true_positive_rate": 0.045,
        "institutions": {2: 4.1176, 4: 5.8122},
        "records": {2: 6.6607, 5: 20.2999} if unit == "record" else {},
        "highest": 50.0,
        **changes,
    }


def make_card(run: RunConfig, **changes: Any) -> dict[str, Any]:
    plan = make_plan(run, 2000)
    private = isinstance(plan, PrivacyPlan)
    institution = {
        "name": "st_mary|<i>",
        "epsilon": 2.9979 if private else None,
        "num_steps": 40,
        "declared_units": 2000,
    }
    return {
        "status": "finished",
        "simulated": False,
        "num_rounds": 40,
        "metric": "accuracy",
        "score": {"mean": 0.7812, "per_institution": {"st_mary|<i>": 0.7934}},
        "institutions": [institution],
        "plan": asdict(plan) if private else {"no_privacy": True},
        "statement": make_statement(plan.unit) if private else None,
        "versions": {"confide": "0.1.0", "dp-accounting": "0.6.0"},
        **changes,
    }
