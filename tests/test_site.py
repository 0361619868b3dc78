"""The documentation site: built without a complaint, complete, and read without a network."""

import logging
import re
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


def test_the_site_asks_no_other_host_for_anything(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    loaded = (
        r'<(?:script|img|iframe)[^>]*\ssrc="?(https?:[^">\s]*)'
        r'|<link[^>]*rel="?(?:stylesheet|preconnect)[^>]*href="?(https?:[^">\s]*)'
    )
    assert [found for page in pages for found in re.findall(loaded, page.read_text(encoding="utf-8"))] == []


def test_every_page_stands_in_the_site_s_contents() -> None:
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert written <= set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
