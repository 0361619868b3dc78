"""Every kind of task with settings and records for tests, and a tiny base of a family that can do it."""

import json
import re
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
    "text-classification, pair": {
        "kind": "text-classification",
        "labels": ["no", "yes"],
        "pair": True,
        "pooling": "native",
        "max_length": 64,
    },
    "scoring, pair": {"kind": "scoring", "highest": 5.0, "pair": True, "max_length": 64},
    "causal-lm": {"kind": "causal-lm", "max_length": 64, "max_new_tokens": 8},
    "causal-lm, completion": {"kind": "causal-lm", "form": "completion", "max_length": 64, "max_new_tokens": 8},
    "causal-lm, text": {"kind": "causal-lm", "form": "text", "max_length": 64, "max_windows": 2, "max_new_tokens": 8},
    "seq2seq": {"kind": "seq2seq", "max_length": 64, "max_new_tokens": 8},
    "preference": {"kind": "preference", "max_length": 64, "beta": 0.5},
    "relation-classification": {
        "kind": "relation-classification",
        "labels": ["quality(e1,e2)", "quality(e2,e1)", "none"],
        "other": "none",
        "max_length": 64,
    },
    "question-answering": {"kind": "question-answering", "max_length": 64},
    "ranking": {"kind": "ranking", "highest": 2.0, "max_candidates": 3, "max_length": 64},
    "multi-label-classification": {
        "kind": "multi-label-classification",
        "labels": ["good", "bad", "long"],
        "max_length": 64,
    },
}
KINDS = tuple(name for name in SETTINGS if "," not in name)  # each in one form: the ten kinds
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
    "text-classification, pair": [
        {"text": "the film was good", "text_pair": "a good film", "label": "yes"},
        {"text": "the long film", "text_pair": "was not short, not bad", "label": "no"},
    ],
    "scoring, pair": [
        {"text": "the film was good", "text_pair": "a good film", "score": 4.5},
        {"text": "the long film", "text_pair": "was hated", "score": 0},
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
        {
            "prompt": [{"role": "user", "content": "the long\nfilm"}],
            "completion": [{"role": "assistant", "content": "bad"}],
        },
    ],
    "causal-lm, text": [{"text": "the film was good"}, {"text": "the long film was very bad"}],
    "seq2seq": [
        {"source": "the film was good", "target": "good film"},
        {"source": "bad", "target": "the long film was very bad"},
    ],
    "preference": [
        {"prompt": "the film was", "chosen": " good", "rejected": " bad and not very good"},
        {"prompt": "the long film ", "chosen": "was not very bad", "rejected": "hated"},
    ],
    "relation-classification": [
        {"text": "the <e1>film</e1> was <e2>very good</e2>", "label": "quality(e1,e2)"},
        {"text": "a <e2>long</e2> <e1>film</e1>, not bad", "label": "quality(e2,e1)"},
    ],
    "ranking": [
        {"query": "a good film", "candidates": ["it was loved", "bad", "short", "hated"], "relevance": [2, 0, 1, 0]},
        {
            "query": "long?",
            "candidates": ["very long", "the film", "not short", "bad"],
            "relevance": ["1.5", 0.0, 2, 0],
        },
    ],
    "multi-label-classification": [
        {"text": "the long film was good", "labels": ["long", "good"]},
        {"text": "the film", "labels": []},
    ],
    "question-answering": [
        {
            "context": "the film was good, not short",
            "question": "was it long?",
            "answers": {"text": ["not short", "good, not short"], "answer_start": [19, 13]},
        },
        {"context": "a very bad film", "question": "was it short?", "answers": {"text": [], "answer_start": []}},
    ],
}
# Lines from which each kind predicts.
_LINES = ["the film was good", "very long and bad film", "hated", "not 1 good film, loved", "bad bad bad"]
# Prompts with line breaks, and conversations so far.
_BREAKS = [json.dumps(text) for text in ("very good\n", "not a long film\n\nhated")]
_TALKS = [
    json.dumps([{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, texts, strict=False)])
    for texts in (("the film\n",), ("the film", "was good", "very bad?"))
]
_PAIRS = [json.dumps({"text": one, "text_pair": other}) for one in _LINES for other in ("loved " * 50, "", "hated it")]
LINES: dict[str, list[str]] = (
    dict.fromkeys(SETTINGS, _LINES)
    | {
        "text-classification, pair": _PAIRS,
        "scoring, pair": _PAIRS,
        "causal-lm": _LINES + _BREAKS + _TALKS,
        "causal-lm, completion": _LINES + _BREAKS + _TALKS,
        "causal-lm, text": _LINES + _BREAKS + _TALKS,  # a text to a model that reads texts
        "seq2seq": _LINES + _BREAKS + _TALKS,
        "relation-classification": [
            "the <e1>film</e1> was <e2>good</e2>",
            "<e2>long</e2><e1>film</e1>",
            *(
                "hated good " * n + "<e1>film</e1> and <e2>the short</e2>" + " not bad" * (n - 16)
                for n in range(20, 60, 5)
            ),
            "very <e1>bad</e1> " + "film " * 80 + "<e2>good</e2>",
            "a <e1> film </e1> and <e2>x</e2>.",
        ],
        "ranking": [
            json.dumps(
                {"query": query, "candidates": ["loved", "was it bad and long?", "good " * 80, "not bad"][:count]}
            )
            for query in ("a good film", "very bad? " * 30)
            for count in (2, 3, 4)
        ],
        "preference": [
            json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected})
            for prompt in ("the film was", "very long " * 50)
            for chosen, rejected in ((" good", " bad"), (" not loved", " very good and short"), ("x", "film " * 60))
        ],
        "question-answering": [
            json.dumps({"context": context, "question": question})
            for context in (
                "the film was good, not short",
                "a very bad film, hated it",
                "loved " * 20 + "the long film",
            )
            for question in ("was it long?", "loved?", "", "very very good? " * 30)
        ],
    }
)
# Lines that a kind refuses, with words of the error.
FAULTY_LINES = {
    "relation-classification": ("the <e1>film</e1>", "text has <e2> 0 times"),
    "question-answering": ("the film", "give JSON objects with context, question"),
    "preference": ("the film", "give JSON objects with prompt, chosen, rejected"),
    "ranking": ("the film", "give JSON objects with query, candidates"),
}


def line_record(kind: str, line: str) -> dict[str, Any]:
    """The record of a line: a text, or of a kind with several inputs a JSON object."""
    task = task_of(kind)
    record: dict[str, Any] = json.loads(line) if len(task.inputs()) > 1 else task.from_line(line)
    return record


def right_answer(truth: Any, kind: str) -> Any:
    """A prediction that is right, by the truth of a kind's record."""
    return next(iter(truth), "") if kind == "question-answering" else truth


_FAMILIES = {"causal-lm": "llama", "preference": "llama", "seq2seq": "t5"}
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


def file_of_kind(text: str, kind: str) -> str:
    """The text of a run.toml with the task of a kind, on a base that can do it."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in SETTINGS[kind].items()]
    text = re.sub(r"(?s)\[task\]\n.*?\[federation\]", "\n".join(["[task]", *lines, "[federation]"]), text)
    base = base_of(kind)
    return re.sub(r"(?m)^base = .*$", f"base = {json.dumps(str(base))}", text) if base else text


def records_of_kind(kind: str, count: int) -> list[dict[str, Any]]:
    """Distinct records of a kind, of one word to more than a window, and beside them those of `RECORDS`."""
    made = [task_of(kind).made_up(0, number, 1 + number % 9 * 10) for number in range(count - len(RECORDS[kind]))]
    return RECORDS[kind] + made


def of_kind(run: RunConfig, kind: str) -> RunConfig:
    """The same run with the task of a kind, on a base that can do it."""
    run = run.model_copy(update={"task": task_of(kind)})
    if base := base_of(kind):
        adapter = run.adapter.model_copy(update={"targets": "auto"})
        model = run.model.model_copy(update={"base": str(base)})
        run = run.model_copy(update={"adapter": adapter, "model": model})
    return run
