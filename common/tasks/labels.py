"""Labels as files write them, and the names that they stand for.

A text is itself, to the letter. A whole number is the text that writes it (1, 1.0 and "1" are one label, as they are
one group), another number likewise; true is "true", "True" or "TRUE", false likewise, and neither is 1 or 0. A code to
which its file gives a name is that name, else its number.
"""

import math
from collections.abc import Container
from decimal import Decimal
from typing import Any


class NamedCode(int):
    """A number to which a file gives a name, as a ClassLabel of Hugging Face's datasets has it.

    To everybody who does not ask for the name it is its number: groups and the keys of units stay what they were.
    """

    name: str

    def __new__(cls, code: int, name: str) -> "NamedCode":
        """A code with its name."""
        named = super().__new__(cls, code)
        named.name = name
        return named

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy."""
        return NamedCode, (int(self), self.name)


def spellings(value: Any) -> tuple[str, ...]:
    """Every text that a label of a file stands for, the likeliest first; none for what is no label.

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
    """The one of ``labels`` that a value of a file stands for, or None."""
    return next((text for text in spellings(value) if text in labels), None)


def shown(value: Any) -> str:
    """A label in a message: in quotes where it is a text, so that blanks show; with its name where it has one."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{int(value)} ({value.name!r})" if isinstance(value, NamedCode) else repr(value)
