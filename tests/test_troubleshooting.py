"""The page that explains messages quotes messages that the product has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^\| `([^`]+)` \|", PAGE, flags=re.MULTILINE)


def _texts(path: Path) -> Iterator[str]:
    """The texts of a file, joined as Python joins them; "…" stands for a value."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


TEXTS = [
    text for folder in ("common", "client", "server", "simulations") for path in (ROOT / folder).rglob("*.py")
    for text in _texts(path)
]  # fmt: skip


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_message_that_the_page_explains_is_one_of_the_product(quoted: str) -> None:
    assert any(quoted in text for text in TEXTS)


def test_the_page_explains_many_messages_and_none_that_is_not_there() -> None:
    assert len(QUOTED) > 30
    assert not any("your computer is too old" in text for text in TEXTS)
