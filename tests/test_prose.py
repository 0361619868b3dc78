"""Docstrings begin with a verb or with the thing, and no sentence stands on its head."""

import ast
import re

import pytest
from test_layers import ROOT, SOURCES

_RIDDLE = re.compile(r"(What|Who|Whom|Whose|Whether|Where|How)\b")
_INVERTED = re.compile(r"\b(had (it|they|he|she|we|you|all)|were (it|they)|should its)\b")


def _docstrings(path: object) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))  # type: ignore[attr-defined]
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [text for node in ast.walk(tree) if isinstance(node, owners) and (text := ast.get_docstring(node))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_docstring_begins_with_a_verb_or_with_the_thing(path: object) -> None:
    assert [text for text in _docstrings(path) if _RIDDLE.match(text)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_docstring_inverts_a_condition(path: object) -> None:
    assert [found[0] for text in _docstrings(path) if (found := re.search(_INVERTED, text))] == []


def test_a_riddle_is_noticed() -> None:
    assert _RIDDLE.match("Who is waited for.")
    assert _RIDDLE.match("What came in.")
    assert not _RIDDLE.match("Whole rows.")
    assert _INVERTED.search("the first stays: had they gone, none would be left")
