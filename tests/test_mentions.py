"""Files and names of the code that a document, docstring or comment has in backticks exist."""

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from test_layers import ROOT, SOURCES, offenders

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLDERS = ("common", "client", "server", "simulations", "tests", "docs")
_QUOTED = re.compile(r"(?<!`)`([^`\s]+)`(?!`)")
# Sections of the three settings files: `[privacy] unit` is also written `privacy.unit`.
_SECTIONS = set(
    re.findall(
        r"^#? ?\[(\w+)\]", "\n".join(path.read_text(encoding="utf-8") for path in ROOT.rglob("*.template.toml")), re.M
    )
)


def _targets(node: ast.AST) -> Iterator[str]:
    """Names that a statement of a module or a class gives."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        named = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (part.id for target in named for part in ast.walk(target) if isinstance(part, ast.Name))
    elif isinstance(node, ast.If | ast.Try):
        yield from (name for part in node.body for name in _targets(part))
    elif isinstance(node, ast.ImportFrom | ast.Import):
        yield from (alias.asname or alias.name for alias in node.names)


def _names() -> dict[str, set[str]]:
    """For each module, package and class, by its last name: what can be written after a dot."""
    known: dict[str, set[str]] = defaultdict(set)
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        stem = path.parent.name if path.stem == "__init__" else path.stem
        known[stem] |= {name for node in tree.body for name in _targets(node)}
        known[path.parent.name].add(path.stem)
        known[path.parent.parent.name].add(path.parent.name)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                known[node.name] |= {name for part in node.body for name in _targets(part)}
    return known


KNOWN = _names()


def _missing(word: str, beside: Path = ROOT) -> bool:
    """A word in backticks is a path or a name of ours that does not exist, from the root or beside the mention."""
    word = word.rstrip(",.;:").removesuffix("()")
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", word) and (
        ("/" in word and word.split("/")[0] in FOLDERS) or word.endswith(".py")
    ):
        return not any((folder / word).exists() for folder in (ROOT, ROOT / "tests", beside))
    if not re.fullmatch(r"(confide\.)?\w+(\.\w+)+", word):
        return False
    owner, name = word.removeprefix("confide.").split(".")[-2:]
    if word.endswith(
        (".toml", ".json", ".md", ".key", ".pem", ".db", ".html", ".jsonl", ".txt", ".log", ".crt", ".token")
    ):
        return False
    return owner in KNOWN and owner not in _SECTIONS and name not in KNOWN[owner]


def _prose(path: Path) -> Iterator[str]:
    """The docstrings and comments of a file of code."""
    text = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT or (
            token.type == tokenize.STRING and token.string.lstrip("rR").startswith('"""')
        ):
            yield token.string


def _wrong_mentions(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8") if path.suffix == ".md" else "\n".join(_prose(path))
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [word for word in _QUOTED.findall(text) if _missing(word, path.parent)]


def test_paths_and_names_in_backticks_exist() -> None:
    assert offenders([*DOCUMENTS, *SOURCES], _wrong_mentions) == {}


def test_what_is_missing_is_noticed() -> None:
    assert _missing("client/nobody.py")
    assert _missing("nobody.py")
    assert _missing("noise.add_none")
    assert _missing("confide.common.errors.Nothing")
    assert _missing("PrivacyPlan.nothing")
    assert not _missing("common/errors.py")
    assert not _missing("errors.InputError")
    assert not _missing("torch.load")


def test_no_remedy_installs_a_package_by_a_name_that_no_index_gives_us() -> None:
    """Pip would find nothing, or one day what somebody else publishes under that name."""
    places = {path: path.read_text(encoding="utf-8") for path in [*DOCUMENTS, *SOURCES]}
    by_name = re.compile(r"pip install (-\S+ )*['\"]?confide\b")
    assert [str(path.relative_to(ROOT)) for path, text in places.items() if by_name.search(text)] == []
