"""Labels as files write them, the names that they stand for, and the rates by which they are counted.

A text stands for itself, to the letter. A number stands for the text that writes it: 1, 1.0 and "1" are one label, as
they are one group. True stands for "true", "True" or "TRUE", false likewise, and neither is 1 or 0. A code to which its
file gives a name stands for that name, else for its number.
"""

import math
from collections.abc import Container, Mapping, Sequence
from decimal import Decimal
from typing import Any

from confide.common.shown import shown as cut


class NamedCode(int):
    """A number to which a file gives a name, as a ClassLabel of Hugging Face's datasets does.

    Code that does not ask for the name sees the number: groups and the keys of units stay the same.
    """

    name: str

    def __new__(cls, code: int, name: str) -> "NamedCode":
        """Make a code with its name."""
        named = super().__new__(cls, code)
        named.name = name
        return named

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the parts from which pickle and copy make it anew."""
        return NamedCode, (int(self), self.name)


def spellings(value: Any) -> tuple[str, ...]:
    """Return every text that a label of a file stands for, the likeliest first; none for a value that is no label.

    >>> spellings("J18"), spellings(1.0), spellings(True), spellings(None)
    (('J18',), ('1', '1.0'), ('true', 'True', 'TRUE'), ())
    """
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bool):
        word = str(value)
        return word.lower(), word, word.upper()
    if isinstance(value, NamedCode):
        return value.name, str(int(value))
    if isinstance(value, int):
        return (str(value),)
    if isinstance(value, float | Decimal) and math.isfinite(value):
        return (str(int(value)), str(value)) if value == value.__trunc__() else (str(value),)
    return ()


def find_label(value: Any, labels: Container[str]) -> str | None:
    """Return the one of ``labels`` that a value of a file stands for, or None."""
    return next((text for text in spellings(value) if text in labels), None)


def shown(value: Any) -> str:
    """Return a label as a message shows it: a text in quotes, so that blanks show, and a named code with its name."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{int(value)} ({value.name!r:.60})" if isinstance(value, NamedCode) else f"{value!r:.60}"


def listed(labels: Sequence[str]) -> str:
    """Return labels as a message lists them, in one short line.

    >>> listed(["bad", "good"])
    "['bad', 'good']"
    """
    return cut(list(labels), 150)


def label_problem(value: Any, labels: Sequence[str]) -> str | None:
    """Return the fault of a value that should be one of ``labels``, or None."""
    if find_label(value, labels) is not None:
        return None
    kind = " (a truth value: 'true' or 'True', never 1)" if isinstance(value, bool) else ""
    return f"label {shown(value)}{kind} is not one of {listed(labels)}; mend it or add it to task.labels"


def label_of(value: Any, labels: Sequence[str]) -> str:
    """Return the label that a value stands for; a value that is none of them stays as it is written."""
    label = find_label(value, labels)
    return str(value) if label is None else label


def index_of(value: Any, labels: Sequence[str]) -> int:
    """Return the place of a value among the labels; 0 for a value that is none of them."""
    label = find_label(value, labels)
    return 0 if label is None else labels.index(label)


def translated(record: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a record with the study's label for its own code; a code without a name stays as the file has it."""
    code = find_label(record.get("label"), names)
    return record if code is None else {**record, "label": names[code]}


def distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels; a label that is there twice is an error."""
    if len(set(labels)) < len(labels):
        raise ValueError(f"labels={list(labels)} must be distinct")
    return labels


def rates_of_labels(truths: Sequence[str], predictions: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Return precision, recall and F1 of each label ("f1/person"); 0 where nothing is counted."""
    from sklearn.metrics import precision_recall_fscore_support

    found = precision_recall_fscore_support(truths, predictions, labels=list(labels), average=None, zero_division=0)
    parts = zip(("precision", "recall", "f1"), found[:3], strict=True)
    return {f"{part}/{label}": float(rate) for part, rates in parts for label, rate in zip(labels, rates, strict=True)}


def number_of(value: Any) -> float | None:
    """Return a value of a file as a finite number, or None; a truth value is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
