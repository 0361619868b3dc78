"""The program of each kind's model card, on public libraries alone, prints what we predict."""

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cards import make_card
from support.kinds import LINES, SETTINGS, base_of, line_record, of_kind, writes

from confide.common.config.run import RunConfig
from confide.common.export.load import load_adapter
from confide.common.export.merge import merge_adapter
from confide.common.export.write import export_adapter
from confide.common.model.adapter import get_state, set_state
from confide.common.model.evaluation import answer
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.tensors import State


def _read(kind: str, line: str) -> Any:
    """The prediction in a line of a program, which shows words beside their tags."""
    if kind.startswith("scoring"):
        return pytest.approx(float(line), abs=1e-4)
    if kind in ("ranking", "preference"):
        return pytest.approx(json.loads(line), abs=1e-4)
    if writes(kind) or kind.startswith("multi") or kind.endswith("spans"):
        return json.loads(line)
    return [pair.rpartition("/")[2] for pair in line.split()] if kind.startswith("token") else line


def _near(kind: str, value: Any) -> Any:
    return pytest.approx(value, abs=1e-4) if kind.startswith(("scoring", "ranking", "preference")) else value


def _variety(found: list[Any]) -> tuple[int, bool]:
    """The number of different predictions, and whether an empty one is among them."""
    return min(3, len({str(answer) for answer in found})), "" in found


def _spread(model: WarmModel, kind: str) -> tuple[State, list[Any]]:
    """The first of thirty states with three predictions, or else that with the most: no program is right by luck.

    Among the answers to questions one is empty.
    """
    records = [line_record(kind, line) for line in LINES[kind]]
    shapes = {name: value.shape for name, value in get_state(model.module).items()}

    def tried(seed: int) -> tuple[State, list[Any]]:
        stream = np.random.default_rng(seed)
        # A large head on standardised states would make every score of a ranking 0 or 1.
        scales = {name: 0.02 if name.startswith("head.") else 0.5 for name in shapes}
        state = {name: stream.normal(0, scales[name], shape).astype(np.float32) for name, shape in shapes.items()}
        set_state(model.module, state)
        return state, answer(model, records)

    enough, best = (3, kind == "question-answering"), tried(0)
    for seed in range(1, 30):
        if _variety(best[1]) >= enough:
            break
        best = max(best, tried(seed), key=lambda pair: _variety(pair[1]))
    state, found = best
    assert _variety(found)[0] > 1
    return state, found


@pytest.mark.parametrize("kind", SETTINGS)
def test_card_program_and_loaded_adapter_predict_as_we_do(
    kind: str,
    make_run: Callable[..., RunConfig],
    base_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = of_kind(make_run(), kind)
    model = warm_model(run, run.speed)
    state, expected = _spread(model, kind)
    export_adapter(tmp_path / "adapter", run, model, state, make_card(run))
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    found = answer(load_adapter(tmp_path / "adapter")[1], [line_record(kind, line) for line in LINES[kind]])
    assert expected == [_near(kind, value) for value in found]
    base = base_of(kind) or base_folder
    for folders in ((tmp_path / "adapter", base), (tmp_path / "merged",)):
        program = re.findall(r"(?s)```python\n(.*?)```", (folders[0] / "README.md").read_text(encoding="utf-8"))[0]
        assert "confide" not in program
        assert ("peft" in program) == (len(folders) == 2)
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, folders)])
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(LINES[kind]) + "\n"))
        capsys.readouterr()
        exec(compile(program, "predict.py", "exec"), {"__name__": "__main__"})  # noqa: S102 - our own card
        lines = capsys.readouterr().out.splitlines()
        assert expected == [_read(kind, line) for line in lines]
