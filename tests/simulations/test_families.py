"""One private round of every family of base models, through `confide simulate`."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.families import BOTH, DECODERS, EACH, save_tiny

Confide = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("family", EACH)
def test_a_private_round(confide: Confide, family: str, run_file: Path, tmp_path: Path) -> None:
    base = save_tiny(family, tmp_path / "base")
    text = re.sub(r"(?m)^base = .*$", f"base = {json.dumps(str(base))}", run_file.read_text(encoding="utf-8"))
    text = text.replace("num_rounds = 2", "num_rounds = 1").replace("max_length = 64", "max_length = 32")
    if family in DECODERS:
        text = text.replace("[task]", '[task]\nkind = "causal-lm"\nform = "text"')
    if family in BOTH:
        text = text.replace("[task]", '[task]\nkind = "seq2seq"').replace(
            "clients = 3", 'clients = 3\ncolumns = { source = "text", target = "label" }'
        )
    if family in (*DECODERS, *BOTH):
        text = re.sub(r"(?m)^labels = .*$", "", text)
    run_file.write_text(text, encoding="utf-8")
    code, output, errors = confide("simulate", run_file, "--out", tmp_path / "out", "--json")
    assert code == 0, errors
    summary = json.loads(output)
    assert summary["status"] == "completed"
    assert set(summary["epsilon"].values()) != {None}
    locked = json.loads((tmp_path / "out" / "adapter" / "run.json").read_text(encoding="utf-8"))
    assert isinstance(locked["adapter"]["targets"], list)
