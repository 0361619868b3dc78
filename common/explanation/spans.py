"""The characters at which each token of a record stands."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from confide.common.explanation.targets import Explained
from confide.common.tasks.token_classification import TokenClassification


class Span(NamedTuple):
    """The place of a token.

    Attributes:
        column: the input in which it stands; of a list of words these words joined by blanks.
        start, end: characters in it.
    """

    column: str
    text: str
    start: int
    end: int


def read_texts(task: Explained, record: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts that are tokenised, by column."""
    if isinstance(task, TokenClassification):
        return {task.inputs()[0]: task.words(record)[0]}
    return {name: record[name] for name in task.inputs()}


def spans_of(task: Explained, record: Mapping[str, Any], tokenizer: Any) -> list[list[Span | None]]:
    """Return for each window the place of each of its tokens; None for a special token."""
    texts = read_texts(task, record)
    several = isinstance(task, TokenClassification)
    encoded = tokenizer(
        *texts.values(),
        truncation=True,
        max_length=task.max_length,
        return_overflowing_tokens=several,
        return_offsets_mapping=True,
    )
    mappings = encoded["offset_mapping"] if several else [encoded["offset_mapping"]]
    columns = list(texts)
    return [
        [
            None if number is None else Span(columns[number], texts[columns[number]][start:end], start, end)
            for number, (start, end) in zip(encoded.sequence_ids(window), mapping, strict=True)
        ]
        for window, mapping in enumerate(mappings)
    ]
