"""A causal base (Llama): its own names, no padding token, attention to what came before, a head on the last token."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeRun
from support.coins import TestCoins
from support.sites import batched, make_records, make_table, random_state, train_sum
from support.speed import CPU
from support.tiny_llama import save_tiny_llama
from support.toy import make_plan
from transformers import LlamaModel

from confide.client.training import local_steps
from confide.client.training.batches import with_prefixes
from confide.common.config.run import RunConfig
from confide.common.data.batches import collate
from confide.common.model.adapter import build_module, schema, set_state
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.privacy.gradients import per_example_gradients
from confide.common.privacy.plan import NoPrivacy

TARGETS = ["q_proj", "v_proj"]


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny-llama"))


def _run(make_run: MakeRun, folder: Path, pooling: str, layers: str = "all") -> RunConfig:
    adapter = {"rank": 4, "targets": TARGETS, "layers": layers}
    return make_run(model={"base": str(folder)}, adapter=adapter, task={"pooling": pooling})


@pytest.fixture(params=["mean", "native"])
def llama(request: pytest.FixtureRequest, make_run: MakeRun, llama_folder: Path) -> WarmModel:
    return warm_model(_run(make_run, llama_folder, request.param), CPU)


@pytest.fixture(params=["mean", "native"])
def top(request: pytest.FixtureRequest, make_run: MakeRun, llama_folder: Path) -> WarmModel:
    return warm_model(_run(make_run, llama_folder, request.param, "top:1"), CPU)


def _rows(model: WarmModel, padded: int) -> dict[str, torch.Tensor]:
    examples = [example for unit in make_table(model, make_records(5)).units for example in unit]
    return collate(examples, padded, model.pads, model.device)


def test_factors_and_head_travel_under_the_base_s_names(llama: WarmModel) -> None:
    names = list(schema(llama.module))
    factors = [f"layers.{layer}.self_attn.{target}.lora_B.weight" for layer in range(3) for target in TARGETS]
    native = llama.task.pooling == "native"
    assert names[:6] == [f"model.{name}" if native else name for name in factors]
    assert names[6:] == (["score.weight"] if native else ["head.weight", "head.bias"])


def test_a_server_knows_the_schema_without_weights(top: WarmModel, make_run: MakeRun, llama_folder: Path) -> None:
    run = _run(make_run, llama_folder, top.task.pooling, "top:1")
    assert schema(build_module(run, llama_folder, torch.device("meta"))) == schema(top.module)
    assert not [name for name in schema(top.module) if "layers.0." in name or "layers.1." in name]


def test_padding_moves_no_prediction(llama: WarmModel) -> None:
    """A head on the last token must know which token pads, else it reads padding."""
    set_state(llama.module, random_state(llama))
    longest = max(len(unit[0]["input_ids"]) for unit in make_table(llama, make_records(5)).units)
    with torch.no_grad():
        tight, wide = (llama.task.logits(llama.module, _rows(llama, longest + more)) for more in (0, 5))
        for row, unit in enumerate(make_table(llama, make_records(5)).units):
            alone = collate(unit, len(unit[0]["input_ids"]), llama.pads, llama.device)
            torch.testing.assert_close(tight[row : row + 1], llama.task.logits(llama.module, alone), atol=1e-5, rtol=0)
    torch.testing.assert_close(tight, wide, atol=1e-5, rtol=0)


def test_gradients_of_examples_are_those_of_each_alone(llama: WarmModel) -> None:
    set_state(llama.module, random_state(llama))
    batch = _rows(llama, 64)
    llama.wrapped.enable_hooks()
    together = per_example_gradients(llama.wrapped, llama.losses, batch)
    llama.wrapped.disable_hooks()
    parameters = [parameter for parameter in llama.module.parameters() if parameter.requires_grad]
    for row, gradient in enumerate(together):
        loss = llama.losses({name: value[row : row + 1] for name, value in batch.items()}).sum()
        expected = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
        assert expected.norm() > 1e-3
        torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=0)


def test_without_privacy_a_step_is_the_same(llama: WarmModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_steps, "PLAIN_NORM_BOUND", 1e6)
    site = batched(llama, make_table(llama, make_records(9)))
    free = make_plan(sampling_probability=1.0, clipping="abadi", clip_norm=1e6, noise_multiplier=1e-9)
    expected = train_sum(free, llama, site, TestCoins(0, quiet=True))
    np.testing.assert_allclose(train_sum(NoPrivacy(1.0, 10, 40), llama, site, TestCoins(0)), expected, atol=1e-4)


def test_kept_prefixes_give_the_same_update(top: WarmModel, tmp_path: Path) -> None:
    """Positions and causal masks are the model's; only the lower layers' states are given."""
    units = batched(top, make_table(top, make_records(12)))
    kept = with_prefixes(units, top, tmp_path)
    assert kept.prefixes is not None
    plan = make_plan(sampling_probability=0.5)
    computed, given = (train_sum(plan, top, site, TestCoins(1, quiet=True)) for site in (units, kept))
    np.testing.assert_array_equal(given, computed)


def test_no_keys_and_values_are_kept_for_a_next_token(llama: WarmModel) -> None:
    base = next(part for part in llama.module.modules() if isinstance(part, LlamaModel))
    assert base(input_ids=torch.tensor([[5, 6]])).past_key_values is None
