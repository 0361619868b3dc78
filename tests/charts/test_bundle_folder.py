"""`make bundle` makes its folder anew, and removes nothing that is not of a bundle."""

import subprocess
import sys
from pathlib import Path

from charts.rendered import ROOT


def _refused(*words: Path | str) -> str:
    command = [sys.executable, ROOT / "deploy" / "bundle.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr


def test_a_folder_with_anything_else_is_not_removed(tmp_path: Path) -> None:
    kept = tmp_path / "thesis.txt"
    kept.write_text("years of work", encoding="utf-8")
    assert "holds 'thesis.txt', which is not of a bundle; name a new folder" in _refused(tmp_path)
    assert "is a file" in _refused(kept)
    assert kept.read_text(encoding="utf-8") == "years of work"


def test_a_base_model_in_the_folder_is_not_removed_before_it_is_copied(tmp_path: Path) -> None:
    base = tmp_path / "bundle" / "models" / "my-base"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}", encoding="utf-8")
    assert "which is made anew" in _refused(tmp_path / "bundle", "--base", base)
    assert (base / "config.json").is_file()
