"""Plain words for what is wrong in a settings file, where the library's words are for programmers."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from typing import Any, get_args

from confide.common.settings import Section
from confide.common.shown import shown

# By pydantic's type of the error; the names in braces are of its context.
_RULES = {
    "missing": "is missing",
    "extra_forbidden": "is not a key that exists here",
    "string_type": "must be a text in quotes",
    "int_type": "must be a whole number, without quotes",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number, with a point and without quotes",
    "bool_type": "must be true or false, without quotes",
    "tuple_type": "must be a list in square brackets",
    "dict_type": "must be a table of keys and values",
    "model_type": "must be a section of keys and values",
    "too_short": "must have at least {min_length} entries, has {actual_length}",
    "too_long": "must have at most {max_length} entries, has {actual_length}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "finite_number": "must be a finite number",
}
_PATTERNS = {  # what a pattern asks for
    r"^[a-z0-9][a-z0-9-]{0,62}$": "must have only small letters a to z, digits and, not first, hyphens; at most 63"
}


def rule_of(error: Mapping[str, Any]) -> str:
    """Return the rule that a value breaks.

    >>> rule_of({"type": "greater_than", "ctx": {"gt": 0}, "msg": "Input should be greater than 0"})
    'must be above 0'
    >>> rule_of({"type": "url_type", "msg": "Input should be a URL"})
    'Input should be a URL'
    """
    context = error.get("ctx", {})
    if error["type"] == "string_pattern_mismatch" and context["pattern"] in _PATTERNS:
        return _PATTERNS[context["pattern"]]
    return _RULES[error["type"]].format(**context) if error["type"] in _RULES else str(error["msg"])


def meant(model: type[Section], place: tuple[int | str, ...]) -> str:
    """Return a question about the key that may have been meant; empty if none is like it.

    Args:
        model: of the file.
        place: the sections on the way to an unknown key, and the key.
    """
    sections: list[type[Section]] = [model]
    for part in place[:-1]:
        fields = [section.model_fields[str(part)] for section in sections if str(part) in section.model_fields]
        if fields:
            sections = [kind for field in fields for kind in _sections(field.annotation)]
        else:  # the kind or the method, which stands between a section and its keys
            sections = [each for each in sections if _is_called(each, str(part))]
    close = difflib.get_close_matches(
        str(place[-1]), sorted({name for each in sections for name in each.model_fields}), 1
    )
    return f" (is {close[0]!r} meant?)" if close else ""


def _sections(annotation: Any) -> list[type[Section]]:
    """Return the sections that a field may hold: one, or one of each kind."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections(part)]


def _is_called(section: type[Section], tag: str) -> bool:
    return any(tag in get_args(field.annotation) for field in section.model_fields.values())


def reading_fault(error: OSError | UnicodeDecodeError | tomllib.TOMLDecodeError, content: bytes) -> str:
    """Return why a file's content could not be read as TOML.

    >>> try: _ = tomllib.loads("a = 3,0")
    ... except tomllib.TOMLDecodeError as error: print(reading_fault(error, b"a = 3,0"))
    line 1 is not TOML: a = 3,0 (Expected newline or end of document after a statement); a number has a point, no comma
    """
    if isinstance(error, OSError):
        return {FileNotFoundError: "there is no such file", IsADirectoryError: "it is a folder, must be a file"}.get(
            type(error), f"cannot be read: {error.strerror}"
        )
    if isinstance(error, UnicodeDecodeError):
        number = content[: error.start].count(b"\n") + 1
        return f"line {number} is not UTF-8; save the file as UTF-8"
    where = re.search(r" \(at line (\d+), column \d+\)$", str(error))
    if where is None:  # at the end of the document
        return f"it is not TOML: {error}"
    number, said = int(where[1]), str(error)[: where.start()]
    line = content.decode("utf-8-sig").split("\n")[number - 1].strip()
    hint = ""
    if re.search(r"=\s*\d+,\d", line):
        hint = "; a number has a point, no comma"
    elif "\\" in line:
        hint = r"; between double quotes \ begins a sign: write / or single quotes"
    return f"line {number} is not TOML: {shown(line, 100)} ({said}){hint}"  # a file may come from elsewhere
