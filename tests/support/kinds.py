"""Every kind of task with settings and records for tests, and a tiny base of a family that can do it."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from support.families import save_tiny

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
    "causal-lm": {"kind": "causal-lm", "max_length": 64, "max_new_tokens": 8},
    "causal-lm, completion": {"kind": "causal-lm", "form": "completion", "max_length": 64, "max_new_tokens": 8},
    "causal-lm, text": {"kind": "causal-lm", "form": "text", "max_length": 64, "max_windows": 2, "max_new_tokens": 8},
    "seq2seq": {"kind": "seq2seq", "max_length": 64, "max_new_tokens": 8},
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
    "causal-lm": [
        {"messages": [{"role": "user", "content": "the film"}, {"role": "assistant", "content": "was good"}]},
        {
            "messages": [
                {"role": "system", "content": "short"},
                {"role": "user", "content": "the long film"},
                {"role": "assistant", "content": "bad"},
                {"role": "user", "content": "very bad"},
                {"role": "assistant", "content": "hated and not loved"},
            ]
        },
    ],
    "causal-lm, completion": [
        {"prompt": "the film was", "completion": " good"},
        {"prompt": "the long film ", "completion": "was very bad"},
    ],
    "causal-lm, text": [{"text": "the film was good"}, {"text": "the long film was very bad"}],
    "seq2seq": [
        {"source": "the film was good", "target": "good film"},
        {"source": "bad", "target": "the long film was very bad"},
    ],
}
_FAMILIES = {"causal-lm": "llama", "seq2seq": "t5"}
_FOLDERS = tempfile.TemporaryDirectory(prefix="confide-tests-")  # removed when the tests end


@cache
def tiny(family: str) -> Path:
    """The folder of a tiny base of a family."""
    return save_tiny(family, Path(_FOLDERS.name) / family)


def base_of(kind: str) -> Path | None:
    """The folder of a tiny base that can do a kind; None where the tiny BERT can."""
    family = _FAMILIES.get(SETTINGS[kind]["kind"])
    return tiny(family) if family else None


def writes(kind: str) -> bool:
    """Whether a model of this kind writes texts: its predictions are losses then, and need the answers."""
    return task_of(kind).longest_answer() > 0


def task_of(kind: str, **changes: Any) -> Task:
    """A checked task of a kind."""
    task: Task = TypeAdapter(TaskSettings).validate_python({**SETTINGS[kind], **changes}, strict=False)
    return task


def of_kind(run: RunConfig, kind: str) -> RunConfig:
    """The same run with the task of a kind, on a base that can do it."""
    base = base_of(kind)
    model = run.model.model_copy(update={"base": str(base)}) if base else run.model
    return run.model_copy(update={"task": task_of(kind), "model": model})
