"""Every name in `adapter.targets` fits a layer, and every tensor that is exported was trained or is a frozen A."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeRun
from safetensors.numpy import load_file
from support.cards import make_card
from support.sites import make_records, make_table, random_state
from support.speed import CPU
from support.tiny_gpt2 import save_tiny_gpt2

from confide.common.data.batches import collate
from confide.common.errors import InputError
from confide.common.export.load import load_adapter
from confide.common.export.write import export_adapter
from confide.common.model.adapter import build_module, get_state, public_name, schema
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.privacy.gradients import per_example_gradients
from confide.common.tasks.heads import TokenHead


@pytest.fixture(scope="module")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_gpt2(tmp_path_factory.mktemp("tiny-gpt2"))


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("targets", "layers", "pooling", "message"),
    [
        (
            ["query", "valeu"],
            "all",
            "mean",
            "'valeu', which is no layer of this base model; .* 'query', 'key', 'value'",
        ),
        (["quer"], "all", "mean", "'quer', which is no layer"),  # a name is whole parts of a layer's name
        (["query", ".*value"], "all", "mean", "which is no layer"),  # no pattern
        (["all-linear"], "all", "mean", "which is no layer"),
        (
            ["word_embeddings"],
            "all",
            "mean",
            "'word_embeddings', which is embeddings.word_embeddings of type Embedding",
        ),
        (["query", "LayerNorm"], "all", "mean", "of type LayerNorm, must be a linear layer"),
        (["attention"], "all", "mean", "of type BertAttention, must be a linear layer"),
        (
            ["dense"],
            "all",
            "mean",
            "pooler.dense too, and no gradient of task.kind = 'text-classification' passes that",
        ),
        (["query", "pooler.dense"], "top:1", "native", "no layer in adapter.layers = 'top:1', only bert.pooler.dense"),
        (["word_embeddings"], "top:1", "mean", "only embeddings.word_embeddings; leave it out"),
        (["query", "classifier"], "all", "native", "'classifier', .* part of the head, which is trained as a whole"),
        (["head"], "all", "mean", "'head', which is no layer of this base"),
    ],
)
def test_a_name_that_fits_nothing_that_is_trained_is_refused(
    make_run: MakeRun, base_folder: Path, device: str, targets: list[str], layers: str, pooling: str, message: str
) -> None:
    """Else it would stand in card and approval, or a random product would be exported as an adapter."""
    run = make_run(adapter={"targets": targets, "layers": layers}, task={"pooling": pooling})
    with pytest.raises(InputError, match=message):
        build_module(run, base_folder, torch.device(device))


@pytest.mark.parametrize(
    ("targets", "layers", "pooling", "count"),
    [
        (["output.dense"], "all", "mean", 4),  # of attention and of the layer: a suffix fits both
        (["dense", "query"], "top:1", "mean", 4),  # no pooler in the last layer
        (["dense"], "all", "native", 7),  # the native head reads the pooler
        (["attention.self.query", "encoder.layer.1.attention.self.value"], "all", "mean", 3),
    ],
)
def test_a_name_may_fit_several_layers_and_all_of_them_are_trained(
    make_run: MakeRun, targets: list[str], layers: str, pooling: str, count: int
) -> None:
    model = warm_model(make_run(adapter={"targets": targets, "layers": layers}, task={"pooling": pooling}), CPU)
    assert len([name for name in schema(model.module) if "lora_B" in name]) == count


def _gpt2(make_run: MakeRun, folder: Path, **adapter: object) -> WarmModel:
    sections = {"targets": ["c_attn", "c_fc"], "rank": 4, **adapter}
    return warm_model(make_run(model={"base": str(folder)}, adapter=sections), CPU)


@pytest.mark.parametrize("train", ["B", "AB"])
def test_layers_of_gpt2_are_adapted_as_linear_ones(make_run: MakeRun, gpt2_folder: Path, train: str) -> None:
    """PEFT puts linear factors on their transposed weights, and each example's gradient is what it gives alone."""
    model = _gpt2(make_run, gpt2_folder, train=train)
    state = random_state(model)
    model.wrapped.enable_hooks()
    examples = [example for unit in make_table(model, make_records(5)).units for example in unit]
    batch = collate(examples, 64, model.pads, model.device)
    together = per_example_gradients(model.wrapped, model.losses, batch)
    model.wrapped.disable_hooks()
    parameters = [parameter for parameter in model.module.parameters() if parameter.requires_grad]
    assert len(state) == len(parameters) == (4 if train == "B" else 8) + 2
    for row, gradient in enumerate(together):
        loss = model.losses({name: value[row : row + 1] for name, value in batch.items()}).sum()
        expected = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
        torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)


def _exported(model: WarmModel, run: object, folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    state = random_state(model)
    export_adapter(folder, run, model, state, make_card(run))  # type: ignore[arg-type]
    return state, load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize("base", ["bert", "gpt2"])
@pytest.mark.parametrize("train", ["B", "AB"])
@pytest.mark.parametrize("layers", ["all", "top:1"])
@pytest.mark.parametrize("pooling", ["mean", "native"])
def test_every_exported_tensor_was_trained_or_is_a_frozen_a(
    make_run: MakeRun,
    base_folder: Path,
    gpt2_folder: Path,
    tmp_path: Path,
    base: str,
    train: str,
    layers: str,
    pooling: str,
) -> None:
    """Nothing is exported as it was drawn but A, whose draw is public and whose B is trained."""
    targets, folder = (["output.dense", "value"], base_folder) if base == "bert" else (["c_attn"], gpt2_folder)
    run = make_run(
        model={"base": str(folder)},
        adapter={"targets": targets, "rank": 4, "train": train, "layers": layers},
        task={"pooling": pooling},
    )
    model = warm_model(run, CPU)
    state, tensors = _exported(model, run, tmp_path / "adapter")
    named = {public_name(name): value for name, value in tensors.items()}
    drawn = {name for name in named if name not in state}
    assert all(np.array_equal(named[name], state[name]) for name in named if name not in drawn)
    assert drawn == (
        {name.replace("lora_B", "lora_A") for name in state if "lora_B" in name} if train == "B" else set()
    )
    assert all(name.startswith("head.") for name in state if name not in named)
    again = get_state(load_adapter(tmp_path / "adapter")[1].module)
    if isinstance(model.module, TokenHead):  # on plain states the head is another
        state |= {f"head.{name}": value.numpy() for name, value in model.module.plain().items()}
    assert all(np.array_equal(again[name], value) for name, value in state.items())
