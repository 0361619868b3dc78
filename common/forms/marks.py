"""Marks around two names of a text, and the signs that a model reads in place of them."""

import re
from typing import Any

from confide.common.forms.texts import text_problem

MARKS = ("<e1>", "</e1>", "<e2>", "</e2>")
MARK = re.compile("</?e[12]>")
_NAME = re.compile(r"<(e[12])>(.*?)</\1>", re.DOTALL)

Part = tuple[int, int, int]  # first character, the one behind the last; 1 first name, 2 second name, 3 between them


def marks_problem(text: Any) -> str | None:
    """Return the fault of a value that should be a text with two marked names, or None."""
    if problem := text_problem(text):
        return problem
    remedy = "mark two names, as in '<e1>Ann</e1> lives in <e2>Rome</e2>'"
    wrong = next((mark for mark in MARKS if text.count(mark) != 1), None)
    if wrong is not None:
        return f"text has {wrong} {text.count(wrong)} times, must have it once; {remedy}"
    names = _NAME.findall(text)
    if len(names) < 2:
        return f"the marks of a text overlap, or close before they open; {remedy}"
    empty = next((number for number, name in names if not name.strip()), None)
    return f"the name between <{empty}> and </{empty}> is empty; {remedy}" if empty is not None else None


def signed(text: str) -> tuple[str, list[Part]]:
    """Return a text with signs in place of its marks, and its parts.

    >>> signed("<e1>Ann</e1> saw <e2>Rome</e2>")
    ('$ Ann $ saw # Rome #', [(2, 5, 1), (8, 11, 3), (14, 18, 2)])
    """
    before, one, between, two, after = MARK.split(text)
    named = (("$", 1), ("#", 2))
    (a, first), (b, second) = named if text.index("<e1>") < text.index("<e2>") else named[::-1]
    pieces = [(f"{before}{a} ", 0), (one, first), (f" {a}", 0), (between, 3), (f"{b} ", 0), (two, second)]
    result, parts = "", list[Part]()
    for piece, number in [*pieces, (f" {b}{after}", 0)]:
        if number and piece.strip():  # a token may begin with the blank before its word
            start = len(result) + len(piece) - len(piece.lstrip())
            parts.append((start, start + len(piece.strip()), number))
        result += piece
    return result, parts


def part_of(start: int, end: int, parts: list[Part]) -> int:
    """Return the part of a text to which a token's characters belong; 0 for none, as a special token's."""
    return next((number for first, last, number in parts if first < end and start < last), 0)
