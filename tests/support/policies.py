"""A run and the policy each of whose bounds it just meets, changed where a test says so."""

import math
from pathlib import Path
from typing import Any

from confide.client.config import DatasetSection, PolicySection
from confide.client.privacy.policy import RunRequest, refusals
from confide.common.config.run import RunConfig, make_plan
from confide.common.config.toml import check
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.plan import PrivacyPlan

BASE = "b" * 64
UNITS = 2000


def make_run(**sections: dict[str, Any]) -> RunConfig:
    """10 rounds of 2 steps with q = 0.1, noise 2 and delta 1e-5, locked; changed where a test says so."""
    content: dict[str, dict[str, Any]] = {
        "study": {"name": "reviews"},
        "model": {"sha256": BASE},
        "task": {"labels": ["negative", "positive"]},
        "federation": {"num_rounds": 10},
        "local": {"steps": 2},
        "privacy": {"noise_multiplier": 2.0},
    }
    for name, values in sections.items():
        content[name] = {**content.get(name, {}), **values}
    return check(RunConfig, content, "test")


def make_dataset(**changes: Any) -> DatasetSection:
    return DatasetSection(**{"id": "people", "path": Path("x.jsonl"), "declared_units": UNITS, **changes})


def plan_of(run: RunConfig) -> PrivacyPlan:
    plan = make_plan(run, UNITS)
    assert isinstance(plan, PrivacyPlan)
    return plan


EPSILON = epsilon(plan_of(make_run()))
# Every bound with the very value that the run has.
EXACT: dict[str, Any] = {
    "max_epsilon": EPSILON,
    "max_epsilon_per_study": EPSILON,
    "max_delta": 1e-5,
    "min_noise_multiplier": 2.0,
    "max_steps": 20,
    "max_rounds": 10,
    "max_sampling_probability": 0.1,
    "min_clip_norm": 1.0,
    "max_head_weight": 0.5,
    "min_release_seconds": 1.0,
    "studies": ("reviews",),
    "base_models": (BASE,),
}
TIGHTER: dict[str, Any] = {
    "max_epsilon": EPSILON - 1e-4,
    "max_epsilon_per_study": EPSILON - 1e-4,
    "max_delta": math.nextafter(1e-5, 0),
    "min_noise_multiplier": math.nextafter(2.0, 3),
    "max_steps": 19,
    "max_rounds": 9,
    "max_sampling_probability": math.nextafter(0.1, 0),
    "min_clip_norm": math.nextafter(1.0, 2),
    "max_head_weight": math.nextafter(0.5, 0),
    "min_release_seconds": math.nextafter(1.0, 2),
    "studies": ("review", "reviews-2"),
    "base_models": ("a" * 64,),
}


def make_policy(**changes: Any) -> PolicySection:
    return PolicySection(**{**EXACT, **changes})


def reasons(run: RunConfig, policy: PolicySection, **dataset: Any) -> list[str]:
    declared = make_dataset(**dataset)
    return refusals(RunRequest(run, make_plan(run, declared.declared_units)), declared, policy)
