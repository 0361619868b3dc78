"""Kinds of task and spans of time, in plain words."""

from typing import Any

from confide.common.shown import shown

_KINDS = {
    "text-classification": "put a text into one of these classes: {labels}",
    "multi-label-classification": "give a text any number of these labels: {labels}",
    "token-classification": "find names of these kinds in a text: {labels}",
    "scoring": "give a text a number from {lowest:g} to {highest:g}",
    "relation-classification": "tell how two names in a text are related: {labels}",
    "question-answering": "find the passage of a text that answers a question",
    "ranking": "put answers to a query into order",
    "causal-lm": "write as your texts do: go on with a text, or answer in a dialogue",
    "seq2seq": "write one text from another, as a summary or a translation does",
    "preference": "prefer the better of two answers, and write so",
}
_SPANS = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


def task_words(task: Any) -> str:
    """Return the aim of a `[task]` section, after "learns to". A label, which a server chose, is quoted."""
    labels = [repr(shown(label, 60)) for label in getattr(task, "labels", ())]
    more = f" and {len(labels) - 12} more" if len(labels) > 12 else ""
    ends = {name: getattr(task, name, 0.0) for name in ("lowest", "highest")}
    return _KINDS[task.kind].format(labels=", ".join(labels[:12]) + more, **ends)


def span_words(seconds: float) -> str:
    """Return a span of time, rounded up, in its largest fitting unit.

    >>> span_words(1800), span_words(14_400), span_words(90_000), span_words(1)
    ('30 minutes', '4 hours', '1.1 days', '1 second')
    """
    name, size = next((each for each in _SPANS if seconds >= each[1]), _SPANS[-1])
    number = -(-10 * seconds // size) / 10
    return f"{number:g} {name}{'' if number == 1 else 's'}"
