"""A run that goes on from a finished adapter: its values, its hash in the locked run, and what does not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MakeRun
from support.cards import make_card
from support.methods import PROMPTS, SETTINGS, run_with, task_for
from support.speed import CPU

from confide.common.config.run import RunConfig, lock
from confide.common.errors import InputError
from confide.common.export.personal import mark
from confide.common.export.start import hash_adapter, initial_state, with_start
from confide.common.export.write import export_adapter, write_adapter
from confide.common.model.adapter import get_state
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import warm_model
from confide.common.tensors import State


def _exported(run: RunConfig, folder: Path) -> State:
    model = warm_model(run, CPU)
    stream = np.random.default_rng(3)
    start = get_state(model.module)
    state = {name: (v + stream.normal(0, 0.3, v.shape)).astype(np.float32) for name, v in start.items()}
    export_adapter(folder, run, model, state, make_card(run))
    return state


def _going_on(run: RunConfig, folder: Path, **study: Any) -> RunConfig:
    adapter = run.adapter.model_copy(update={"start_from": str(folder)})
    return run.model_copy(update={"adapter": adapter, "study": run.study.model_copy(update=study)})


@pytest.mark.parametrize(
    "method",
    [
        name if name in {"lora", "norms", "p-tuning"} else pytest.param(name, marks=pytest.mark.families)
        for name in SETTINGS
    ],
)
@pytest.mark.parametrize("pooling", ["mean", "native"])
def test_a_run_begins_with_the_finished_values(
    method: str, pooling: str, make_run: MakeRun, base_folder: Path, tmp_path: Path
) -> None:
    if pooling == "native" and method in PROMPTS:
        return
    task = {**task_for(method, "bert"), "pooling": pooling}
    run = lock(run_with(make_run, method, base_folder, task), hash_model(base_folder))
    state = _exported(run, tmp_path / "adapter")
    again = with_start(_going_on(run, tmp_path / "adapter"))
    assert again.adapter.start_sha256 == hash_adapter(tmp_path / "adapter")
    found = initial_state(again, warm_model(again, CPU))
    assert found.keys() == state.keys()
    for name, value in state.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4)


@pytest.fixture
def finished(make_run: MakeRun, base_folder: Path, tmp_path: Path) -> tuple[RunConfig, Path]:
    run = lock(make_run(), hash_model(base_folder))
    _exported(run, tmp_path / "adapter")
    return run, tmp_path / "adapter"


def test_the_hash_is_part_of_the_run(finished: tuple[RunConfig, Path]) -> None:
    run, folder = finished
    again = with_start(_going_on(run, folder))
    assert again.sha256() != run.sha256()
    assert again.adapter.start_sha256 in again.canonical_json()
    tensors = folder / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x01")
    with pytest.raises(InputError, match=r"adapter.start_sha256 = [0-9a-f]{64}, but the files of .* hash to"):
        with_start(again)


def test_another_seed_is_refused_where_factors_are_frozen(finished: tuple[RunConfig, Path]) -> None:
    run, folder = finished
    other = _going_on(run, folder, seed=run.study.seed + 1)
    with pytest.raises(InputError, match=r"frozen factors are of study.seed = \d+, this run draws others"):
        initial_state(other, warm_model(other, CPU))


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("model", {"sha256": "0" * 64}, "use the same base"),
        ("adapter", {"rank": 2}, r"use the same \[adapter\] and \[task\]"),
        ("adapter", {"targets": ("query",)}, r"use the same \[adapter\] and \[task\]"),
        ("adapter", {"rank_stabilised": True}, r"adapter.rank_stabilised = False, this run has True"),
        ("task", {"labels": ("positive", "negative")}, r"trained with task.labels"),
        ("task", {"labels": ("a", "b", "c")}, r"use the same \[adapter\] and \[task\]"),
    ],
)
def test_an_adapter_of_another_run_is_refused(
    section: str, change: dict[str, Any], words: str, finished: tuple[RunConfig, Path]
) -> None:
    run, folder = finished
    going_on = _going_on(run, folder)
    changed = going_on.model_copy(update={section: getattr(going_on, section).model_copy(update=change)})
    model = warm_model(changed if section != "model" else going_on, CPU)
    with pytest.raises(InputError, match=words):
        initial_state(changed, model)


def test_a_personalised_adapter_is_no_start(make_run: MakeRun, base_folder: Path, tmp_path: Path) -> None:
    """A start is sent to every institution, and what was personalised never leaves."""
    run = lock(make_run(), hash_model(base_folder))
    model = warm_model(run, CPU)
    state = get_state(model.module)
    write_adapter(tmp_path / "own", run, model, state, "card", mark(tmp_path))
    with pytest.raises(InputError, match="is not private and never leaves"):
        with_start(_going_on(run, tmp_path / "own"))
    with pytest.raises(InputError, match="is not private and never leaves"):
        initial_state(_going_on(run, tmp_path / "own"), model)


def test_a_missing_adapter_is_named(finished: tuple[RunConfig, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; name an exported adapter"):
        with_start(_going_on(finished[0], tmp_path / "nothing"))
    hashed = finished[0].adapter.model_copy(update={"start_sha256": "0" * 64})
    with pytest.raises(InputError, match=r"adapter.start_from names no adapter; set both or none"):
        with_start(finished[0].model_copy(update={"adapter": hashed}))
