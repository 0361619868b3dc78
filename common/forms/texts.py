"""Texts: what is none, and made-up ones."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any


def text_problem(value: Any, name: str = "text") -> str | None:
    """Return the fault of a value that should be a text, or None."""
    if isinstance(value, float) and math.isnan(value):  # an empty cell, as pandas has it
        value = None
    if not isinstance(value, str | None):
        return f"{name} is {_kind(value)}, must be a string; put it in quotes, or name another column"
    if value is None or not value.strip():
        return f"{name} is empty; remove the record or give it a text"
    if not value.isprintable() and any("\ud800" <= sign <= "\udfff" for sign in value):
        return f"{name} holds half a surrogate pair, which is no character; mend the record's encoding"
    return None


def texts_problem(record: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return the fault of the first of several columns that should hold texts, or None."""
    return next((problem for name in names if (problem := text_problem(record[name], name))), None)


def _kind(value: Any) -> str:
    """Return in words the kind of a value that should be a text."""
    names = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")


def made_up_words(seed: int, number: int, count: int) -> list[str]:
    """Return ``count`` numbers as words, the same for the same arguments."""
    return list(map(str, hashlib.shake_128(f"{seed} {number}".encode()).digest(count)))


def made_up_texts(names: Sequence[str], seed: int, number: int, count: int) -> dict[str, str]:
    """Return texts of ``count`` made-up words by column; the words of a second text stand the other way round."""
    words = made_up_words(seed, number, count)
    return {name: " ".join(words[:: -1 if place else 1]) for place, name in enumerate(names)}
