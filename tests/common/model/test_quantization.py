"""A base in four and in eight bits: gradients like a loop's, and a unit's the same in any company."""

from collections.abc import Callable

import pytest
import torch
from support.kinds import of_kind
from support.sites import random_state
from support.speed import CPU

from confide.client.training.trial import tried_shapes
from confide.common.config.run import RunConfig, lock
from confide.common.data.batches import collate, length, padded_length
from confide.common.errors import InputError
from confide.common.model import quantization
from confide.common.model.adapter import set_state
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.privacy.gradients import per_example_gradients

MakeRun = Callable[..., RunConfig]
KINDS = ("nf4", "int8")


def _quantised(run: RunConfig, kind: str) -> RunConfig:
    return run.model_copy(update={"model": run.model.model_copy(update={"quantization": kind})})


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, make_run: MakeRun) -> WarmModel:
    model = warm_model(_quantised(of_kind(make_run(), "causal-lm, text"), request.param), CPU)
    set_state(model.module, random_state(model))
    return model


def test_gradients_are_those_of_one_row_at_a_time_in_float32(model: WarmModel) -> None:
    examples = [model.task.examples(model.task.made_up(0, n, 5 + 3 * n), model.tokenizer)[0] for n in range(3)]
    batch = collate(examples, padded_length(max(map(length, examples))), model.pads, model.device)
    model.wrapped.enable_hooks()
    together = per_example_gradients(model.wrapped, model.losses, batch)
    model.wrapped.disable_hooks()
    assert together.dtype == torch.float32
    for row in range(3):
        model.module.zero_grad()
        model.task.losses(model.module, {name: value[row : row + 1] for name, value in batch.items()}).sum().backward()
        alone = torch.cat([p.grad.flatten() for p in model.module.parameters() if p.requires_grad])
        assert alone.abs().max() > 0
        torch.testing.assert_close(together[row], alone, rtol=1e-3, atol=1e-5 * float(alone.abs().max()))


def test_weights_are_quantised_and_the_adapter_is_not(model: WarmModel) -> None:
    kinds = {type(layer).__name__ for layer in model.module.modules()}
    assert kinds & {"Linear4bit", "Linear8bitLt"}
    assert {p.dtype for p in model.module.parameters() if p.requires_grad} == {torch.float32}
    assert all(of[0] > 1 for of in tried_shapes(model, 128).by_length.values()), "every row would be computed alone"


def test_no_row_decides_whether_others_are_taken_in_sixteen_bits(make_run: MakeRun) -> None:
    model = warm_model(_quantised(of_kind(make_run(), "causal-lm, text"), "int8"), CPU)
    thresholds = {layer.state.threshold for layer in model.module.modules() if hasattr(layer, "state")}
    assert thresholds == {0.0}


def test_a_run_without_new_settings_keeps_its_hash(make_run: MakeRun) -> None:
    run = make_run()
    assert "quantization" not in run.canonical_json()
    assert "pair" not in run.canonical_json()
    assert '"pair":true' in make_run(task={"pair": True}).canonical_json()
    assert '"quantization":"nf4"' in _quantised(run, "nf4").canonical_json()
    assert lock(_quantised(run, "int8"), "0" * 64).model.quantization == "int8"


def test_what_cannot_be_quantised_is_refused(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    native = _quantised(make_run(task={"pooling": "native"}), "nf4")
    with pytest.raises(InputError, match="a quantised head cannot be trained; use task"):
        warm_model(native, CPU)
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs bitsandbytes; pip install '\.\[quantization\]' in a checkout"):
        warm_model(_quantised(make_run(), "nf4"), CPU)
