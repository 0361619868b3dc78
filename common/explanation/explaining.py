"""Explanations of a record's prediction, as JSON holds them."""

from collections.abc import Mapping
from typing import Any

from confide.common.data.batches import length
from confide.common.explanation.attributions import attribute, require_captum
from confide.common.explanation.spans import Span, spans_of
from confide.common.explanation.targets import Target, explained_task, targets_of
from confide.common.forms.windows import require_fast
from confide.common.model.warm_model import WarmModel
from confide.common.tasks import Task
from confide.common.tasks.task import Example

_DIGITS = 5


def require_explainable(task: Task) -> None:
    """Require a kind that can be explained, and Captum; `InputError` names what is not there."""
    explained_task(task)
    require_captum()


def explanation(model: WarmModel, record: Mapping[str, Any], prediction: Any) -> list[dict[str, Any]]:
    """Return for each label, entity or score of a prediction the share of each token in it.

    Args:
        model: in float32, with a finished adapter.
        record: with the inputs of its kind.
        prediction: of the model for this record.

    Returns:
        For each: its name ("label"; "entity", "first_word", "last_word"; "score"), its ``value`` and ``baseline``, and
        ``tokens``: each with ``column``, ``text``, ``start``, ``end`` and ``attribution``. None for a text without a
        token, or without any label or entity.

    Raises:
        InputError: the kind cannot be explained, or the tokenizer does not tell at which characters a token stands.
    """
    task = explained_task(model.task)
    require_fast(model.tokenizer, task.kind)
    model.wrapped.disable_hooks()
    windows, spans = task.examples(record, model.tokenizer), spans_of(task, record, model.tokenizer)
    if not any(map(length, windows)):
        return []
    targets = targets_of(task, windows, task.truth({**record, **dict.fromkeys(task.answers(), prediction)}))
    return [_explained(model, windows[target.window], spans[target.window], target) for target in targets]


def _explained(model: WarmModel, example: Example, spans: list[Span | None], target: Target) -> dict[str, Any]:
    found = attribute(model, example, [span is None for span in spans], target.value)
    tokens = [
        {**span._asdict(), "attribution": round(share, _DIGITS)}
        for span, share in zip(spans, found.shares, strict=True)
        if span is not None
    ]
    return {
        **target.of,
        "value": round(found.value, _DIGITS),
        "baseline": round(found.baseline, _DIGITS),
        "tokens": tokens,
    }
