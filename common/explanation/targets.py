"""The values that are explained: the logit of a label, the logits of an entity's tags, a score."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from confide.common.errors import InputError
from confide.common.forms.entities import entities
from confide.common.tasks import Task
from confide.common.tasks.multi_label_classification import MultiLabelClassification
from confide.common.tasks.scoring import Scoring
from confide.common.tasks.task import Example
from confide.common.tasks.text_classification import TextClassification
from confide.common.tasks.token_classification import TokenClassification

Explained = TextClassification | MultiLabelClassification | TokenClassification | Scoring


@dataclass(frozen=True)
class Target:
    """One value that a model gives for an example.

    Attributes:
        of: fields that name it, as {"label": "positive"}.
        window: the number of the example within its record.
        value: gives the value for each row of a batch, shape ``(B,)``.
    """

    of: dict[str, Any]
    window: int
    value: Callable[[nn.Module, Mapping[str, Tensor]], Tensor]


def explained_task(task: Task) -> Explained:
    """Return a task of a kind whose predictions can be explained.

    Raises:
        InputError: it is of another kind.
    """
    if isinstance(task, Explained):
        return task
    kind = task.model_dump()["kind"]
    raise InputError(
        f"task.kind = {kind!r} cannot be explained: its answer is no single value of the text (a written text, a pair "
        "of places, an order, a relation of marked names); --explain is for text-classification, "
        "multi-label-classification, token-classification and scoring"
    )


def targets_of(task: Explained, windows: list[Example], prediction: Any) -> list[Target]:
    """Return the values that make up a prediction: none for a text without any label or entity."""
    if isinstance(task, Scoring):
        return [Target({"score": prediction}, 0, lambda *given: _score(task, *given))]
    if isinstance(task, TokenClassification):
        return [_entity(task, windows, *found) for found in entities(prediction)]
    labels = prediction if isinstance(prediction, list) else [prediction]
    return [_label(task, label) for label in labels]


def _label(task: TextClassification | MultiLabelClassification, label: str) -> Target:
    number = task.labels.index(label)
    return Target({"label": label}, 0, lambda *given: task.logits(*given)[:, number])


def _score(task: Scoring, module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    return task.lowest + task.shares(module, batch) * (task.highest - task.lowest)


def _entity(task: TokenClassification, windows: list[Example], label: str, first: int, last: int) -> Target:
    """Return the sum of the logits of an entity's tags at its words, as far as the window of its first word goes."""
    window = next(number for number, example in enumerate(windows) if first + 1 in example["word"])
    found = [(place, word - 1) for place, word in enumerate(windows[window]["word"]) if first < word <= last + 1]
    places = [place for place, _ in found]
    tags = [task.tags.index(f"{'B' if word == first else 'I'}-{label}") for _, word in found]
    of = {"entity": label, "first_word": first, "last_word": last}
    return Target(of, window, lambda *given: task.logits(*given)[:, places, tags].sum(dim=1))
