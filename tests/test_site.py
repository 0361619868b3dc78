"""The documentation site: built without a complaint, complete, and read without a network."""

import logging
import re
import runpy
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from confide.common.cli.main import COMMANDS
from confide.common.config.run import RunConfig

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        logging.getLogger("mkdocs").setLevel(logging.ERROR)
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    return folder


def test_the_reference_has_every_command_and_every_section(site: Path) -> None:
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"confide {name}" not in commands] == []
    run = (site / "reference" / "run-toml.html").read_text(encoding="utf-8")
    assert [name for name in RunConfig.model_fields if f"[{name}]" not in run] == []
    assert "sampling_probability" in run


@pytest.fixture(scope="module")
def meanings() -> dict[tuple[str, ...], str]:
    """The meaning of each key in the reference, by file, section, kind or method, and key."""
    found: dict[tuple[str, ...], str] = {}
    for path, text in runpy.run_path(str(ROOT / "docs" / "reference.py"))["pages"]().items():
        section = kind = ""
        for line in text.partition("## The file with comments")[0].splitlines():
            if line.startswith("## "):
                section, kind = line[3:], ""
            elif line.startswith("### "):
                kind = line[4:]
            elif row := re.fullmatch(r"\| (`\w+`|name of an institution) \|.*\| (.*) \|", line):
                found[Path(path).name, section, kind, row[1].strip("`")] = row[2].strip()
    return found


def test_every_key_of_the_reference_has_a_meaning_of_its_own(meanings: dict[tuple[str, ...], str]) -> None:
    assert len(meanings) > 120
    assert [key for key, meaning in meanings.items() if not meaning or meaning == "example"] == []
    of_another = re.compile(r"^[\[\w]+\]? = |\s# |^Of kind")
    assert [key for key, meaning in meanings.items() if of_another.search(meaning)] == []
    assert [key for key, meaning in meanings.items() if meaning.endswith((",", " at a"))] == [], "cut at a line's end"


def test_keys_of_one_name_have_the_meaning_of_their_place(meanings: dict[tuple[str, ...], str]) -> None:
    def of(file: str, section: str, key: str, kind: str = "") -> str:
        return meanings[f"{file}-toml.md", f"[{section}]", kind and f'kind = "{kind}"', key]

    assert "ledger" in of("site", "state", "dir")
    assert "base models" in of("site", "models", "dir")
    assert "public" in of("run", "evaluation", "data")
    assert "Parquet" in of("run", "simulation", "data")
    assert "tags" in of("run", "task", "form", "token-classification")
    assert "messages" in of("run", "task", "form", "causal-lm")
    assert "score" in of("run", "task", "highest", "scoring")
    assert "relevance" in of("run", "task", "highest", "ranking")
    assert "telephone" in of("site", "partners", "name of an institution")


def test_the_site_asks_no_other_host_for_anything(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    loaded = (
        r'<(?:script|img|iframe)[^>]*\ssrc="?(https?:[^">\s]*)'
        r'|<link[^>]*rel="?(?:stylesheet|preconnect)[^>]*href="?(https?:[^">\s]*)'
    )
    assert [found for page in pages for found in re.findall(loaded, page.read_text(encoding="utf-8"))] == []


def test_notebooks_are_on_the_site_and_a_page_of_it_links_each(site: Path) -> None:
    names = sorted(path.name for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"))
    start = (site / "index.html").read_text(encoding="utf-8")
    assert len(names) == 3
    assert [name for name in names if not (site / "notebooks" / name).is_file()] == []
    assert [name for name in names if not re.search(f'href="?notebooks/{name}', start)] == []


def test_the_first_page_installs_the_texts_of_the_default_scenario() -> None:
    """Or the first commands that a reader types would fail."""
    [texts] = re.findall(r"^TEXTS := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    first = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert f".venv/bin/pip install --no-deps {texts} " in first.partition(".venv/bin/confide simulate")[0]


def test_the_steward_s_page_has_every_step_of_a_steward_in_the_pilot() -> None:
    steward, pilot = ((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("steward", "pilot"))
    steps = set(re.findall(r"confide (?:client (?:ledger \w+|models \w+|\w+)|verify)", pilot))
    assert {"confide client approve", "confide client ledger export"} <= steps
    assert sorted(step for step in steps if step not in steward) == []
    assert "answer for an institution's data | [Data stewards](steward.md)" in (ROOT / "docs" / "index.md").read_text()


def test_every_page_stands_in_the_site_s_contents() -> None:
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert written <= set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
