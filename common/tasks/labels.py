"""Labels as files write them, and the names that they stand for.

A text stands for itself, to the letter. A number stands for the text that writes it: 1, 1.0 and "1" are one label, as
they are one group. True stands for "true", "True" or "TRUE", false likewise, and neither is 1 or 0. A code to which its
file gives a name stands for that name, else for its number.
"""

import math
from collections.abc import Container
from decimal import Decimal
from typing import Any


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
    return f"{int(value)} ({value.name!r})" if isinstance(value, NamedCode) else repr(value)
