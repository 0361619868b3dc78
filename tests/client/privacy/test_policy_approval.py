"""Approval binds every field of the locked run, of a study and a run together."""

import json
from typing import Any

import pytest
from support.policies import make_policy, make_run

from confide.client.privacy.policy import waits_for_approval

# Another value for every key of a locked run: the table must name each of them.
OTHER: dict[str, dict[str, Any]] = {
    "study": {"name": "reviews-2", "institutions": ["st-mary"], "seed": 8},
    "model": {"base": "another", "sha256": "c" * 64},
    "adapter": {"method": None, "rank": 9, "targets": ["key"], "train": "AB", "layers": "top:1"},
    "task": {"kind": None, "labels": ["positive", "negative"], "max_length": 64, "pooling": "native"},
    "federation": {
        "num_rounds": 20,
        "min_clients": 2,
        "deadline_seconds": 60.0,
        "release_seconds": 2.0,
        "aggregation": "median",
        "weights": "declared",
        "server_optimizer": "none",
        "learning_rate": 0.1,
        "average_decay": 0.1,
        "transfer": "int8",
        "participation": 0.5,
    },
    "local": {"steps": 1, "sampling_probability": 0.05, "nominal_units": 100, "learning_rate": 0.5},
    "privacy": {
        "unit": "group",
        "target_epsilon": 2.0,
        "target_delta": 1e-6,
        "clip_norm": 2.0,
        "clipping": "abadi",
        "head_weight": 1.0,
        "noise_multiplier": 2.1,
    },
    "evaluation": {"data": "x.jsonl", "every": 1, "validation_every": 5, "validation_noise_multiplier": 20.0},
}
# The same for keys that a locked run leaves out at their default.
LEFT_OUT: dict[str, dict[str, Any]] = {
    "model": {"quantization": "int8"},
    "adapter": {"start_from": "adapter", "start_sha256": "d" * 64},
    "federation": {"learning_rate_left": 1.0, "sum_seconds": 400.0},
    "local": {"adversarial": 0.05},
}
CHANGES = [
    (section, key, value)
    for table in (OTHER, LEFT_OUT)
    for section, values in table.items()
    for key, value in values.items()
    if value is not None
]


def test_the_table_names_every_key_of_a_locked_run() -> None:
    content = json.loads(make_run().canonical_json())
    assert {section: set(values) for section, values in content.items()} == {s: set(v) for s, v in OTHER.items()}
    assert [(s, key) for s, values in LEFT_OUT.items() for key in values if key in content[s]] == []


@pytest.mark.parametrize(("section", "key", "value"), CHANGES, ids=[f"{section}.{key}" for section, key, _ in CHANGES])
def test_approval_binds_every_field_of_the_locked_run(section: str, key: str, value: Any) -> None:
    run, policy = make_run(), make_policy()
    approved = {(run.study.name, run.sha256())}
    assert waits_for_approval(run, policy, approved) is None
    changed = make_run(**{section: {key: value}})
    waits = waits_for_approval(changed, policy, approved)
    assert waits is not None
    assert f"confide client approve {changed.study.name}" in waits
    assert changed.sha256()[:12] in waits


def test_approval_is_of_a_study_and_a_run_together() -> None:
    run, policy = make_run(), make_policy()
    for other in (set(), {("another", run.sha256())}, {(run.study.name, "0" * 64)}):
        assert waits_for_approval(run, policy, other)
    assert waits_for_approval(run, make_policy(require_approval=False), set()) is None


def test_settings_of_a_simulation_are_no_part_of_what_is_approved() -> None:
    run = make_run()
    simulated = make_run(simulation={"data": "x.jsonl"}, speed={"device": "cpu"})
    assert waits_for_approval(simulated, make_policy(), {(run.study.name, run.sha256())}) is None
