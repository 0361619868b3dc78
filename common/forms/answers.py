"""Answers that stand in a context: their form in a file, their faults, and how a found one is compared with them."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from confide.common.forms.entities import plain
from confide.common.forms.texts import text_problem

_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Beyond(int):
    """The first character of an answer in the whole context, of which too little was kept. No file holds this type."""


def pairs_of(answers: Any) -> list[tuple[Any, Any]] | None:
    """Return each answer's text and first character from SQuAD's form of them; None for a value of another form."""
    if not isinstance(answers, dict):
        return None
    texts, starts = plain(answers.get("text")), plain(answers.get("answer_start", answers.get("start")))
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        return None
    return list(zip(texts, starts, strict=True))


def answers_problem(answers: Any, context: str) -> str | None:
    """Return the fault of the answers in a context, or None."""
    pairs = pairs_of(answers)
    if pairs is None:
        return (
            f"answers is {answers!r:.60}, must be an object with the lists text and answer_start, of one length; both "
            "are empty where the context holds no answer"
        )
    return next((problem for text, start in pairs if (problem := _problem(text, start, context))), None)


def _problem(text: Any, start: Any, context: str) -> str | None:
    if problem := text_problem(text, "an answer"):
        return problem
    if isinstance(start, Beyond):  # it was looked at before the cut
        return None
    if isinstance(start, int) and start >= 0 and context[start : start + len(text)] == text:
        return None
    return (
        f"answer {text!r:.60} does not stand at {start!r:.60} in its context; mend answer_start, in characters from 0"
    )


def with_beyond(answers: Any, context: str, size: int) -> Any:
    """Return the answers in a context of which so many characters are kept: the start of one beyond is a `Beyond`.

    An answer that does not stand in the context stays as it is, and so does a value of another form, for its fault to
    be named.

    >>> [type(start).__name__ for start in with_beyond({"text": ["a", "c"], "start": [0, 2]}, "abc", 2)["answer_start"]]
    ['int', 'Beyond']
    """
    pairs = pairs_of(answers)
    if pairs is None:
        return answers
    starts = [
        start if _problem(text, start, context) or start + len(text) <= size else Beyond(start) for text, start in pairs
    ]
    return {"text": [text for text, _ in pairs], "answer_start": starts}


def words_of(text: str) -> list[str]:
    """Return the words of an answer as they are compared: in lower case, without punctuation and articles.

    >>> words_of("The Eiffel-Tower, a landmark.")
    ['eiffeltower', 'landmark']
    """
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION)).split()


def is_exact(answers: Sequence[str], found: str) -> bool:
    """Return whether a found answer has the words of one that was given; no answer was given: none must be found."""
    return any(words_of(found) == words_of(answer) for answer in answers or [""])


def overlap(answers: Sequence[str], found: str) -> float:
    """Return F1 of the words in common with the best of the answers that were given, from 0 to 1.

    >>> overlap(["the tall tower", "towers"], "tall old tower"), overlap([], ""), overlap([], "tower")
    (0.8, 1.0, 0.0)
    """
    return max(_f1(words_of(answer), words_of(found)) for answer in answers or [""])


def _f1(right: list[str], found: list[str]) -> float:
    if not right or not found:
        return float(right == found)
    common = sum((Counter(right) & Counter(found)).values())
    return 2 * common / (len(right) + len(found))
