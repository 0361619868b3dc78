"""The constants that standardise what a head reads, and what training under noise is without them."""

import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import MakeRun
from safetensors.torch import load_file, save_file
from support.coins import TestCoins
from support.sites import batched, make_table
from torch import nn

from confide.client.training.local_steps import LocalWork, train
from confide.common.config.run import RunConfig, make_plan
from confide.common.errors import InputError
from confide.common.model import plain_texts
from confide.common.model.adapter import get_state, reset
from confide.common.model.evaluation import evaluate
from confide.common.model.plain_texts import standardise
from confide.common.model.warm_model import WarmModel, forget_models, warm_model
from confide.common.tasks.heads import TokenHead
from confide.common.training import optimizer

COMMON = 20.0  # what every coordinate of every state has in common; what differs among states is of size 1
_LAST = "encoder.layer.1.output.LayerNorm"
RECORDS = [
    {"text": " ".join(["the film was", *[word] * (1 + number % 3), end]), "label": label}
    for number in range(20)
    for word, label in (("good", "positive"), ("bad", "negative"))
    for end in ("and long", "not short")
]


def changed_base(base_folder: Path, folder: Path, weight: float, bias: float) -> Path:
    """The tiny BERT with other constants in its last layer norm, which its states leave it by."""
    base = shutil.copytree(base_folder, folder)
    tensors = load_file(base / "model.safetensors")
    tensors[f"{_LAST}.weight"][:] = weight
    tensors[f"{_LAST}.bias"][:] = bias
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    return base


@pytest.fixture
def common(make_run: MakeRun, base_folder: Path, tmp_path: Path) -> RunConfig:
    """A run on a base whose states share one large direction."""
    base = changed_base(base_folder, tmp_path / "base", 1.0, COMMON)
    return make_run(
        model={"base": str(base)},
        federation={"num_rounds": 8, "learning_rate": 5e-2},
        local={"sampling_probability": 0.5, "nominal_units": len(RECORDS)},
    )


def accuracy(run: RunConfig, model: WarmModel, seed: int) -> float:
    """Percent, after the rounds of one institution; on its own texts, for nothing else is asked."""
    reset(model.module, run.study.seed)
    state, units = optimizer.start(get_state(model.module)), batched(model, make_table(model, RECORDS))
    plan, coins = make_plan(run, len(RECORDS)), TestCoins(seed)
    for _ in range(run.federation.num_rounds):
        update = train(LocalWork(plan, state.adapter, 1, 1.0), model, units, coins)
        state = optimizer.apply(state, update, run.federation)
    return 100 * evaluate(model, state.average, {"own": RECORDS}).mean


def test_noise_in_a_direction_that_all_states_share_does_not_decide(common: RunConfig) -> None:
    """Without constants whole runs fall to chance, by luck of the noise."""
    model = warm_model(common, common.speed)
    assert isinstance(model.module, TokenHead)
    assert min(accuracy(common, model, seed) for seed in range(4)) > 90
    model.module.centre.zero_()
    assert min(accuracy(common, model, seed) for seed in range(4)) < 70
    forget_models()


def test_states_of_plain_texts_get_the_length_of_the_head(common: RunConfig) -> None:
    model = warm_model(common, common.speed)
    module = model.module
    assert isinstance(module, TokenHead)
    states = []
    for text in plain_texts.TEXTS:
        ids = torch.tensor([model.tokenizer(text, truncation=True, max_length=64)["input_ids"]])
        with torch.no_grad():
            states.append(module.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0])
    found = (torch.cat(states) - module.centre) / module.spread
    assert float(torch.cat(states).mean()) == pytest.approx(COMMON, rel=0.01)
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(32), rtol=0, atol=1e-3)
    assert float(found.square().sum(dim=1).mean().sqrt()) == pytest.approx(module.length, rel=1e-3)
    forget_models()


class _Fixed(nn.Module):
    """A base with the same states for every text, as many of them as it has tokens."""

    def __init__(self, states: list[list[float]]) -> None:
        super().__init__()
        self.states = torch.tensor([states])

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.states[:, : input_ids.shape[1]])


def _head(states: list[list[float]]) -> TokenHead:
    head = TokenHead(_Fixed(states), 3, 2)
    standardise(head, lambda *_, **__: {"input_ids": [1, 2]}, 64)
    return head


def test_a_coordinate_that_never_moves_does_not_count_for_more_than_ten_others() -> None:
    head = _head([[1.0, 5.0, 0.0], [3.0, 9.0, 0.0]])  # deviations 1, 2 and 0, so the median is 1
    np.testing.assert_allclose(head.centre, [2.0, 7.0, 0.0])
    np.testing.assert_allclose(head.spread, np.array([1.0, 2.0, 0.1]) * np.sqrt(3) / head.length, rtol=1e-6)


def test_states_that_never_move_are_centred_alone() -> None:
    head = _head([[1.0, 5.0, 0.0], [1.0, 5.0, 0.0]])
    np.testing.assert_allclose(head.centre, [1.0, 5.0, 0.0])
    np.testing.assert_allclose(head.spread, np.ones(3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_base_with_states_that_are_not_finite_is_refused(value: float) -> None:
    """Constants that are not finite would make every gradient so, and every record would count for nothing."""
    with pytest.raises(InputError, match="not finite"):
        _head([[1.0, value, 0.0], [3.0, 9.0, 0.0]])


def test_a_text_without_tokens_is_no_error() -> None:
    head = TokenHead(_Fixed([[1.0, 5.0, 0.0], [3.0, 9.0, 0.0]]), 3, 2)
    standardise(head, lambda *_, **__: {"input_ids": []}, 64)
    assert torch.isfinite(head.spread).all()


def test_what_a_run_does_to_the_model_moves_no_constant(common: RunConfig) -> None:
    """Else an institution that trains and a server that exports would mean different heads."""
    model = warm_model(common, common.speed)
    assert isinstance(model.module, TokenHead)
    before = model.module.centre.clone(), model.module.spread.clone()
    accuracy(common, model, 0)
    forget_models()
    again = warm_model(common, common.speed).module
    torch.testing.assert_close((again.centre, again.spread), before, rtol=0, atol=0)
    forget_models()
