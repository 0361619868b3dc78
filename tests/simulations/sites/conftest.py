"""Three institutions on disk, and the command that runs with all of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.installations import write_site
from support.real_sites import NAMES
from support.sites import make_records

Confide = Callable[..., tuple[int, str, str]]
Settings = Callable[..., list[str]]
Federate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sites(tmp_path: Path) -> dict[str, Path]:
    """Three institutions with their own records, which agree to any run of study "small"."""
    return {
        name: write_site(tmp_path / name, make_records(30)[10 * number :][:10], name=name)
        for number, name in enumerate(NAMES)
    }


@pytest.fixture
def federate(confide: Confide, settings: Settings, run_file: Path, sites: dict[str, Path]) -> Federate:
    """``federate("federation.num_rounds=3", out="first")``: the command with all sites."""

    def call(*pairs: str, out: str = "out", options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        named = [part for path in sites.values() for part in ("--site", str(path))]
        return confide("simulate", run_file, *named, "--out", run_file.parent / out, *settings(*pairs), *options)

    return call
