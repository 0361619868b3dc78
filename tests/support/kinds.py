"""Every kind of task with settings and records for tests."""

from typing import Any

from pydantic import TypeAdapter

from confide.common.config.run import RunConfig
from confide.common.tasks import Task, TaskSettings

SETTINGS: dict[str, dict[str, Any]] = {
    "text-classification": {"kind": "text-classification", "labels": ["negative", "positive"], "max_length": 64},
    "scoring": {"kind": "scoring", "lowest": -4.0, "highest": 4.0, "max_length": 64},
    "token-classification": {"kind": "token-classification", "labels": ["quality", "thing"], "max_length": 64},
    "token-classification, spans": {
        "kind": "token-classification",
        "labels": ["quality", "thing"],
        "form": "spans",
        "max_length": 64,
    },
}
RECORDS: dict[str, list[dict[str, Any]]] = {
    "text-classification": [
        {"text": "the film was good", "label": "positive"},
        {"text": "the long film was very bad", "label": "negative"},
    ],
    "scoring": [{"text": "the film was good", "score": 2.5}, {"text": "the long film was very bad", "score": "-3"}],
    "token-classification": [
        {"tokens": ["the", "film", "was", "good"], "tags": ["O", "B-thing", "O", "B-quality"]},
        {"tokens": ["very", "long", "film"], "tags": ["B-quality", "I-quality", "B-thing"]},
    ],
    "token-classification, spans": [
        {"text": "the film was good", "entities": [{"start": 4, "end": 8, "label": "thing"}]},
        {"text": "very long, film!", "entities": [{"start": 0, "end": 9, "label": "quality"}]},
    ],
}


def task_of(kind: str, **changes: Any) -> Task:
    """A checked task of a kind."""
    task: Task = TypeAdapter(TaskSettings).validate_python({**SETTINGS[kind], **changes}, strict=False)
    return task


def of_kind(run: RunConfig, kind: str) -> RunConfig:
    """The same run with the task of a kind."""
    return run.model_copy(update={"task": task_of(kind)})
