"""A text gives the same bits whenever it is read: else others would decide them, by chance or by what is remembered."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeRun
from support.sites import flatten
from support.speed import CPU
from support.tiny_bert import tiny_tokenizer
from transformers import MixtralConfig, MixtralForCausalLM

from confide.client.training.trial import tried_shapes
from confide.common.data.shapes import one_row_each
from confide.common.errors import InputError
from confide.common.model.adapter import get_state
from confide.common.model.warm_model import WarmModel, forget_models, warm_model


@pytest.fixture(autouse=True)
def untried() -> Iterator[None]:
    """Let no trial of another test stand for one of these."""
    forget_models()
    yield
    forget_models()


def test_the_jitter_of_a_router_is_taken_out(tmp_path: Path, make_run: MakeRun) -> None:
    """It is drawn anew for each text, from a stream that goes on from unit to unit."""
    shared = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    tokenizer = tiny_tokenizer()
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "router_jitter_noise": 0.01}
    config = MixtralConfig(**shared, vocab_size=len(tokenizer), intermediate_size=32, **experts)
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    run = make_run(model={"base": str(tmp_path)}, adapter={"targets": ["q_proj", "v_proj"]})
    assert tried_shapes(warm_model(run, CPU), 1024) == one_row_each(64)


@pytest.mark.parametrize("kept", [False, True], ids=["drawn at random", "counted since the start"])
def test_a_row_alone_that_is_not_the_same_again_is_refused(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """Rows that always stand alone were compared with nothing."""
    calls = itertools.count()

    def changed(losses_B: torch.Tensor) -> torch.Tensor:
        return losses_B * (1 + 1e-6 * (next(calls) if kept else float(torch.rand([]))))

    model, losses = warm_model(make_run(), CPU), WarmModel.losses
    monkeypatch.setattr(WarmModel, "losses", lambda model, batch: changed(losses(model, batch)))
    before = get_state(model.module)
    with pytest.raises(InputError, match="computes it again, alone"):
        tried_shapes(model, 1024)
    np.testing.assert_array_equal(flatten(get_state(model.module)), flatten(before))
