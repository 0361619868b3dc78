"""What the documents tell people to type exists, with these options, and their links lead to files."""

import importlib
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from click.exceptions import Exit, UsageError

from confide.common.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")])
_GROUPS = {" ".join(name.split()[:length]) for name in COMMANDS for length in range(1, len(name.split()))}


def _typed(text: str) -> list[str]:
    """What follows ``confide`` on the lines of a document's shell blocks; of a container, what its image is given."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    calls = [re.match(r"(?:.*bin/|docker (?:run|exec) .* )?confide (.*)", line.partition(" #")[0]) for line in lines]
    return [re.split(r" (?:>|\||&&|;) ?", call[1])[0] for call in calls if call]


def _named(text: str) -> list[str]:
    """What follows ``confide`` in the code of a document's sentences, on one line."""
    return [" ".join(found.split()) for found in re.findall(r"`confide ([^`]+)`", text)]


def _find(words: list[str]) -> tuple[str, list[str]]:
    """The longest command that the words begin with, and the rest."""
    names = (" ".join(words[:length]) for length in (3, 2, 1))
    name = next((name for name in names if name in COMMANDS), "")
    return name, words[len(name.split()) :]


@cache
def _command(name: str) -> Any:
    module, _, function = COMMANDS[name][0].partition(":")
    app = typer.Typer(add_completion=False)
    app.command()(getattr(importlib.import_module(module), function))
    return typer.main.get_command(app)


def _complaint(line: str) -> str:
    """Why a command line would be refused before anything is done; empty where it would not."""
    name, rest = _find(shlex.split(line))
    if not name:
        return "no such command"
    try:
        _command(name).make_context(name, rest)
    except UsageError as error:
        return error.format_message()
    except Exit:  # --help
        return ""
    return ""


def _misnamed(words: list[str]) -> str:
    """The command or option that does not exist in a mention, which may leave arguments out; empty if all exist."""
    name, rest = _find(words)
    plain = [word for word in words if re.fullmatch("[a-z-]+", word)]
    if not name:
        return "" if " ".join(plain) in _GROUPS or words == ["--version"] else " ".join(words)
    known = {option for parameter in _command(name).params for option in parameter.opts} | {"--help"}
    return next((word for word in rest if word.startswith("--") and word.partition("=")[0] not in known), "")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_line_of_a_document_would_be_accepted(path: Path) -> None:
    complaints = {line: why for line in _typed(path.read_text(encoding="utf-8")) if (why := _complaint(line))}
    assert complaints == {}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_a_document_mentions_exists_with_these_options(path: Path) -> None:
    wrong = {line: name for line in _named(path.read_text(encoding="utf-8")) if (name := _misnamed(line.split()))}
    assert wrong == {}


def test_commands_are_found_where_documents_have_them() -> None:
    """Or the tests above would check nothing."""
    text = """
See `confide client
pause` or `confide server ...`.

```sh
confide client init > site.toml     # edit it
docker build -t confide .
sudo install -d -o confide -m 0700 /var/lib/confide
docker run --rm -v fl:/var/lib/confide confide server init fl \\
    --host fl.example.org
sudo -u confide /opt/confide/bin/confide server status --home fl | head -1
```
"""
    typed = [" ".join(line.split()) for line in _typed(text)]
    assert typed == ["client init", "server init fl --host fl.example.org", "server status --home fl"]
    assert _named(text) == ["client pause", "server ..."]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("client frobnicate", "no such command"),
        ("server status --house fl", "No such option"),
        ("server approve request.json", "Missing option"),
        ("client start now", "unexpected extra argument"),
    ],
)
def test_a_command_line_that_is_wrong_is_noticed(line: str, why: str) -> None:
    assert why in _complaint(line)


def test_a_mention_that_is_wrong_is_noticed() -> None:
    assert _misnamed(["server", "run", "--fellow"]) == "--fellow"
    assert _misnamed(["server", "dance"]) == "server dance"
    assert _misnamed(["server", "run"]) == ""


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_to_files(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def _anchors(path: Path) -> set[str]:
    """The names under which a page's headings are linked to, by GitHub and by the built pages."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_headings_lead_to_headings(path: Path) -> None:
    links = re.findall(r"\]\(((?!https?:|mailto:)[^)#\s]*)#([^)\s]+)\)", path.read_text(encoding="utf-8"))
    targets = [((path.parent / page).resolve() if page else path, anchor) for page, anchor in links]
    assert [anchor for page, anchor in targets if page.suffix == ".md" and anchor not in _anchors(page)] == []
