"""What a base model has to be, found out before any run is joined."""

import gc
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeRun
from support.families import save_tiny
from support.methods import run_with, task_for
from support.speed import CPU
from transformers import BertModel

from confide.common.errors import InputError
from confide.common.model.adapter import get_state
from confide.common.model.warm_model import forget_models, warm_model


def test_a_base_without_a_gradient_for_each_example_is_refused_before_any_run(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else just those rounds would be declined whose private draw is not empty."""

    def fails(*_: object) -> None:
        raise RuntimeError("a trained layer is used on something else")

    forget_models()
    monkeypatch.setattr("confide.common.model.warm_model.per_example_gradients", fails)
    with pytest.raises(InputError, match="gives no gradient for each example"):
        warm_model(make_run(), CPU)
    monkeypatch.undo()
    assert warm_model(make_run(), CPU)


@pytest.mark.parametrize("of_masked", [False, True], ids=["all", "masked batches"])
def test_a_base_that_a_short_text_changes_is_refused_before_any_run(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, of_masked: bool
) -> None:
    """Else one short record would change the gradients of all others, by more than its own clip: BigBird does so."""
    forward, was_short = BertModel.forward, list[bool]()

    def forward_of_a_bird(self: BertModel, *arguments: Any, **named: Any) -> Any:
        found = forward(self, *arguments, **named)
        was_short.extend([True] * (found.last_hidden_state.shape[1] <= 8))
        changes = bool(was_short) and not (of_masked and named["attention_mask"].all())
        found.last_hidden_state = found.last_hidden_state * (2.0 if changes else 1.0)
        return found

    forget_models()
    monkeypatch.setattr(BertModel, "forward", forward_of_a_bird)
    with pytest.raises(InputError, match="after it has read a shorter one"):
        warm_model(make_run(), CPU)
    monkeypatch.undo()
    assert warm_model(make_run(), CPU)


@pytest.mark.parametrize(("max_length", "limit", "most"), [(129, 129, 128), (60, 60, 56), (57, 63, 56)])
def test_a_row_padded_beyond_the_last_position_is_refused_before_any_run(
    make_run: MakeRun, base_folder: Path, tmp_path: Path, max_length: int, limit: int, most: int
) -> None:
    """Else just those rounds would be declined whose private draw holds so long a text."""
    base = shutil.copytree(base_folder, tmp_path / "base")
    settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": limit}), encoding="utf-8")
    with pytest.raises(InputError, match=f"reads {limit} tokens, .* at most {most}"):
        warm_model(make_run(model={"base": str(base)}, task={"max_length": max_length}), CPU)


@pytest.mark.parametrize("max_length", [30, 100])
def test_a_base_without_a_last_position_reads_texts_of_any_length(
    make_run: MakeRun, tmp_path: Path, max_length: int
) -> None:
    """T5 and BLOOM count distances between tokens, and their configurations name no limit."""
    folder = save_tiny("t5", tmp_path / "t5")
    run = run_with(make_run, "lora", folder, {**task_for("lora", "t5"), "max_length": max_length})
    assert warm_model(run, CPU)


@pytest.mark.parametrize("moved_by", [0, 1])
def test_a_tokenizer_with_gaps_is_refused_if_an_id_is_beyond_the_embeddings(
    make_run: MakeRun, base_folder: Path, tmp_path: Path, moved_by: int
) -> None:
    """Else just those rounds would fail whose private draw holds that token; on a GPU all that follow as well."""
    base = shutil.copytree(base_folder, tmp_path / "base")
    content = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    ids: dict[str, int] = content["model"]["vocab"]
    largest, count = max(ids, key=lambda token: ids[token]), len(ids)
    del ids["film"]  # a gap: there are fewer tokens than embeddings
    ids[largest] += moved_by
    (base / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    run = make_run(model={"base": str(base)})
    if moved_by:
        with pytest.raises(InputError, match=f"ids of up to {count}, its weights have {count} embeddings"):
            warm_model(run, CPU)
    else:
        assert warm_model(run, CPU)


def test_a_forgotten_model_takes_no_memory(make_run: MakeRun) -> None:
    """Its modules and their hooks refer to each other; Python looks for such things when it likes."""
    held = weakref.ref(warm_model(make_run(study={"seed": 9}), CPU).module)
    gc.disable()
    try:
        forget_models()
        assert held() is None
    finally:
        gc.enable()


def test_a_model_has_a_copy_on_every_further_device(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_models()
    monkeypatch.setattr("confide.common.model.warm_model.choose_devices", lambda names: [torch.device("cpu")] * 3)
    found = warm_model(make_run(), CPU)
    modules = [each.module for each in (found, *found.copies)]
    assert len({id(module) for module in modules}) == 3
    starts = [get_state(module) for module in modules]
    assert all(np.array_equal(starts[0][name], start[name]) for start in starts for name in starts[0])
    forget_models()
