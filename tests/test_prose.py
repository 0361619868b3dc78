"""Docstrings begin with a verb or with the thing, and no sentence stands on its head."""

import ast
import re
from pathlib import Path

from test_layers import SOURCES, offenders, tree_of

_RIDDLE = re.compile(r"(What|Who|Whom|Whose|Whether|Where|How)\b")
_INVERTED = re.compile(r"\b(had (it|they|he|she|we|you|all)|were (it|they)|should its)\b")


def _docstrings(path: Path) -> list[str]:
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for node in ast.walk(tree_of(path)) if isinstance(node, owners))
    return [text for node in nodes if (text := ast.get_docstring(node))]


def test_a_docstring_begins_with_a_verb_or_with_the_thing() -> None:
    assert offenders(SOURCES, lambda path: [text for text in _docstrings(path) if _RIDDLE.match(text)]) == {}


def test_no_docstring_inverts_a_condition() -> None:
    assert offenders(SOURCES, lambda path: [text for text in _docstrings(path) if _INVERTED.search(text)]) == {}


def test_a_riddle_is_noticed() -> None:
    assert _RIDDLE.match("Who is waited for.")
    assert _RIDDLE.match("What came in.")
    assert not _RIDDLE.match("Whole rows.")
    assert _INVERTED.search("the first stays: had they gone, none would be left")
