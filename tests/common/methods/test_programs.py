"""The program of a card puts every method into a base that writes, and gives the logits that we compute."""

import json
import re
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeRun
from support.cards import make_card
from support.families import save_tiny
from support.methods import IN_PEFT, SETTINGS, run_with, task_for
from support.speed import CPU

from confide.common.config.run import lock
from confide.common.export.write import export_adapter
from confide.common.model.adapter import get_state, set_state
from confide.common.model.base_models import hash_model
from confide.common.model.evaluation import answer
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.tensors import State

LINES = ["the film was good", "very bad and long", "short"]
PROMPTS = ("prompt-tuning", "p-tuning", "prefix-tuning")
WRITING = [name for name in SETTINGS if name != "head"]  # there is none to train
_IN_CI = ("gpt2", "bottleneck")
CASES = [
    pytest.param(family, method, marks=[] if (family, method) == _IN_CI else pytest.mark.waits)
    for family in ("llama", "gpt2")
    for method in WRITING
    if (family, method) != ("llama", "bitfit")  # Llama has no biases
]
HEADS = [name for name in SETTINGS if name not in PROMPTS]
OF_HEADS = [name if name == "head" else pytest.param(name, marks=pytest.mark.waits) for name in HEADS]


def _moved(model: WarmModel) -> State:
    """A state some way from the start, in every tensor."""
    random = np.random.Generator(np.random.PCG64(1))
    start = get_state(model.module)
    return {name: (v + 0.3 * random.standard_normal(v.shape)).astype(np.float32) for name, v in start.items()}


def _exported(make_run: MakeRun, method: str, folder: Path, task: dict[str, Any], to: Path) -> WarmModel:
    run = lock(run_with(make_run, method, folder, task), hash_model(folder))
    model = warm_model(run, CPU)
    state = _moved(model)
    export_adapter(to, run, model, state, make_card(run))
    set_state(model.module, state)
    return model


def _ran(adapter: Path, base: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the program of a card has when it ends."""
    program = re.findall(r"(?s)```python\n(.*?)```", (adapter / "README.md").read_text(encoding="utf-8"))[0]
    assert "confide" not in program
    patch.setattr(sys, "argv", ["predict.py", str(adapter), str(base)])
    patch.setattr(sys, "stdin", StringIO("\n".join(LINES) + "\n"))
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(program, "predict.py", "exec"), names)  # noqa: S102 - our own card
    return names


@pytest.mark.filterwarnings("ignore:Unsupported layer type", "ignore:Position ids are not supported")
@pytest.mark.parametrize(("family", "method"), CASES)
def test_a_cards_program_writes_as_we_do(
    family: str, method: str, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder = save_tiny(family, tmp_path / family)
    model = _exported(make_run, method, folder, task_for(method, family), tmp_path / "adapter")
    expected = answer(model, [model.task.from_line(line) for line in LINES])
    capsys.readouterr()
    names = _ran(tmp_path / "adapter", folder, monkeypatch)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == expected
    ids = torch.tensor([[5, 6, 7, 8]])
    _require_same(model, names["model"], ids, virtual=3 if method in {"prompt-tuning", "p-tuning"} else 0)
    assert ("PeftModel" in names) == (method in IN_PEFT)


@pytest.mark.filterwarnings("ignore:Unsupported layer type")
@pytest.mark.parametrize("method", OF_HEADS)
def test_a_cards_program_gives_the_logits_of_the_bases_head(
    method: str, make_run: MakeRun, base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = {**task_for(method, "bert"), "pooling": "native"}
    model = _exported(make_run, method, base_folder, task, tmp_path / "adapter")
    names = _ran(tmp_path / "adapter", base_folder, monkeypatch)
    _require_same(model, names["model"], torch.tensor([[5, 6, 7, 8]]), virtual=0)


def _require_same(model: WarmModel, theirs: Any, ids: torch.Tensor, virtual: int) -> None:
    """Compare the logits of two models."""
    model.wrapped.disable_hooks()
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    ours: Any = getattr(model.module, "encoder", None) or model.module.base
    with torch.inference_mode():
        expected, found = ours(**inputs).logits, theirs(**inputs).logits
    cut = found.shape[1] - expected.shape[1] if found.ndim == 3 else 0
    assert cut == virtual
    torch.testing.assert_close(found[:, cut:], expected, rtol=1e-4, atol=1e-4)
