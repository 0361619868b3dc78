"""The estimate of a run's memory: near what a forward pass keeps, in every family, and told in one line."""

from pathlib import Path

import pytest
import torch
from conftest import MakeRun
from support.families import BOTH, DECODERS, EACH, save_tiny
from support.kinds import of_kind
from support.methods import run_with, task_for
from torch import Tensor

from confide.common.config.run import RunConfig
from confide.common.config.simulation import SpeedSection
from confide.common.data.batches import collate
from confide.common.errors import InputError
from confide.common.model import memory
from confide.common.model.memory import Memory, fit_of, kept_numbers
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.tasks.causal_lm import CausalLM
from confide.common.tasks.seq2seq import Seq2Seq

SHAPE = (4, 64)


def test_a_base_larger_than_the_memory_is_refused_before_its_weights_are_read(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(study={"seed": 77})
    monkeypatch.setattr(memory, "memory_of", lambda device: Memory(1, 50_000))
    monkeypatch.setattr("confide.common.model.warm_model.build_module", None)  # it would read them
    with pytest.raises(InputError, match=r"takes about 0\.0 GiB, more than the 0\.0 GiB of cpu; use another device"):
        warm_model(run)


def _run(make_run: MakeRun, family: str, folder: Path) -> RunConfig:
    base = save_tiny(family, folder / family)
    run = make_run(model={"base": str(base)}, adapter={"targets": "auto"}, task={"max_length": 64})
    if family in DECODERS:
        return run.model_copy(update={"task": CausalLM(kind="causal-lm", form="text", max_length=64)})
    return run.model_copy(update={"task": Seq2Seq(kind="seq2seq", max_length=64)}) if family in BOTH else run


def _counted(model: WarmModel) -> int:
    """Bytes that PyTorch keeps for the backward pass of a full micro-batch, beside the weights."""
    batch = collate([model.made_up(0, row) for row in range(SHAPE[0])], SHAPE[1], model.pads, model.device)
    weights = {p.untyped_storage().data_ptr() for p in model.module.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(value: Tensor) -> Tensor:
        if (place := value.untyped_storage().data_ptr()) not in weights:
            kept[place] = value
        return value

    model.wrapped.disable_hooks()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        losses = model.task.losses(model.module, batch)
    assert losses.requires_grad
    return sum(value.untyped_storage().nbytes() for value in kept.values())


def _speed(way: str = "eager") -> SpeedSection:
    attention = "fixed" if way == "fixed" else "eager"
    return SpeedSection.model_validate(
        {"device": "cpu", "precision": "float32", "attention": attention, "checkpointing": way == "checkpointing"}
    )


def _estimate(model: WarmModel, way: str = "eager") -> float:
    kept = kept_numbers(model.module, SHAPE, eager=way != "fixed", checkpointing=way == "checkpointing")
    return 4 * kept


@pytest.mark.parametrize("family", EACH)
def test_the_estimate_is_near_what_a_forward_pass_keeps(make_run: MakeRun, family: str, tmp_path: Path) -> None:
    model = warm_model(_run(make_run, family, tmp_path), _speed())
    assert 0.5 * _estimate(model) < _counted(model) < 1.3 * _estimate(model)


def test_scores_and_layers_that_are_not_kept_are_not_counted(make_run: MakeRun, tmp_path: Path) -> None:
    """Of a checkpointed layer the input is kept; the one layer that the backward pass holds is not seen here."""
    run = _run(make_run, "llama", tmp_path)
    models = {way: warm_model(run, _speed(way)) for way in ("eager", "fixed", "checkpointing")}
    estimates = {way: _estimate(model, way) for way, model in models.items()}
    counted = {way: _counted(model) for way, model in models.items()}
    assert counted["checkpointing"] < counted["fixed"] < counted["eager"]
    assert counted["checkpointing"] < estimates["checkpointing"] < estimates["fixed"] < estimates["eager"]
    assert 0.5 * estimates["fixed"] < counted["fixed"] < 1.3 * estimates["fixed"]
    saved = counted["eager"] - counted["fixed"]
    assert 0.5 * saved < estimates["eager"] - estimates["fixed"] < 3 * saved, "the one kernel keeps masks of pairs"


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_a_base_takes_the_bytes_of_its_weights(make_run: MakeRun, quantization: str, tmp_path: Path) -> None:
    """Those of quantised layers are fewer; embeddings keep their precision."""
    run = _run(make_run, "llama", tmp_path)
    run = run.model_copy(update={"model": run.model.model_copy(update={"quantization": quantization})})
    model = warm_model(run, _speed())
    own = {name: p for name, p in model.module.named_parameters() if not p.requires_grad and "lora" not in name}
    fit = fit_of(run, tmp_path / "llama", _speed())
    held = sum(p.numel() * p.element_size() for p in own.values())
    assert held * 0.9 < fit.base < held * 1.3


def test_a_device_that_is_too_small_is_told_with_a_remedy(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = of_kind(make_run(), "causal-lm, text")
    folder, name = Path(run.model.base), run.model.base
    fit = fit_of(run, folder, _speed())
    for whole, words in (
        (fit.base + fit.step, None),
        (fit.base + fit.step - 1, "lower compute.tokens_per_micro_batch or set compute.checkpointing = true"),
        (fit.base - 1, "use another device, or ask for a run with a smaller base or with model.quantization"),
    ):
        monkeypatch.setattr(memory, "memory_of", lambda device, whole=whole: Memory(0, whole))
        problem = fit_of(run, folder, _speed()).problem(name)
        assert (problem or "").endswith(words or ""), "what is free now does not decide"
        assert bool(problem) == bool(words)
        if problem:
            assert problem.startswith(f"base model {name!r} takes about ")
            assert "rows of 64 tokens" in problem


def test_the_fullest_step_grows_with_the_tokens_and_shrinks_with_the_precision(make_run: MakeRun) -> None:
    run = of_kind(make_run(), "causal-lm, text")
    folder = Path(run.model.base)
    usual, twice, half = (
        fit_of(run, folder, _speed().model_copy(update=change))
        for change in ({}, {"tokens_per_micro_batch": 2 * _speed().tokens_per_micro_batch}, {"precision": "bfloat16"})
    )
    assert usual.shape[0] * 2 == twice.shape[0]
    assert 1.9 * usual.step < twice.step < 2.1 * usual.step
    assert half.base < 0.7 * usual.base
    assert half.step < usual.step


def test_virtual_tokens_and_both_texts_of_a_pair_are_counted(make_run: MakeRun, base_folder: Path) -> None:
    run = run_with(make_run, "prompt-tuning", base_folder, task_for("prompt-tuning", "bert"))
    few, many = (
        run.model_copy(update={"adapter": run.adapter.model_copy(update={"tokens": tokens})}) for tokens in (1, 48)
    )
    assert fit_of(many, base_folder, _speed()).step > 1.5 * fit_of(few, base_folder, _speed()).step
    one, two = (of_kind(make_run(), kind) for kind in ("causal-lm, completion", "preference"))
    assert fit_of(two, Path(two.model.base), _speed()).step > 1.9 * fit_of(one, Path(one.model.base), _speed()).step


def test_memory_is_that_of_the_machine_or_its_container() -> None:
    found = memory.memory_of(torch.device("cpu"))
    assert 0 < found.free <= found.whole


def test_a_head_alone_keeps_nothing_for_the_layers(make_run: MakeRun, base_folder: Path) -> None:
    """Not even with checkpointing, whose share is one layer of none."""
    task = make_run().task.model_dump(mode="json")
    module = warm_model(run_with(make_run, "head", base_folder, task), _speed()).module
    assert [kept_numbers(module, SHAPE, eager=True, checkpointing=some) for some in (False, True)] == [0, 0]


def test_a_page_cache_that_the_kernel_gives_back_is_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base that was hashed fills it: a container would be told that nothing is left."""
    for name, text in (("max", "1000\n"), ("current", "900\n"), ("stat", "anon 300\ninactive_file 500\n")):
        (tmp_path / f"memory.{name}").write_text(text, encoding="utf-8")
    monkeypatch.setattr(memory, "Path", lambda path: tmp_path / Path(path).name)
    assert memory.memory_of(torch.device("cpu")) == Memory(1000 - (900 - 500), 1000)
