"""Attention in one kernel and gradient checkpointing: the same gradients, in shapes that give every unit the same."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import MakeRun
from support.families import BOTH, DECODERS, EACH, save_tiny
from support.sites import random_state
from torch.nn.attention import SDPBackend

from confide.client.training.trial import tried_shapes
from confide.common.config.run import RunConfig
from confide.common.config.simulation import SpeedSection
from confide.common.data.batches import Batch, collate, length, padded_length
from confide.common.errors import InputError
from confide.common.model.adapter import set_state
from confide.common.model.attention import _OneKernel
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.privacy.gradients import per_example_gradients
from confide.common.tasks.causal_lm import CausalLM
from confide.common.tasks.seq2seq import Seq2Seq

WAYS = {
    "fixed": SpeedSection(device="cpu", attention="fixed"),
    "checkpointing": SpeedSection(device="cpu", checkpointing=True),
    "both": SpeedSection(device="cpu", attention="fixed", checkpointing=True),
}
EAGER_ALONE = {"deberta-v2", "gemma2"}


@pytest.fixture(scope="module", params=EACH)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def run(make_run: MakeRun, family: str, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = save_tiny(family, tmp_path_factory.mktemp("family") / family)
    run = make_run(model={"base": str(folder)}, adapter={"targets": "auto"}, task={"max_length": 32})
    if family in DECODERS:
        return run.model_copy(update={"task": CausalLM(kind="causal-lm", form="text", max_length=32)})
    return run.model_copy(update={"task": Seq2Seq(kind="seq2seq", max_length=32)}) if family in BOTH else run


def _gradients(model: WarmModel) -> torch.Tensor:
    set_state(model.module, random_state(model))
    model.wrapped.enable_hooks()
    return per_example_gradients(model.wrapped, model.losses, _batch(model))


def _batch(model: WarmModel) -> Batch:
    examples = [model.task.examples(model.task.made_up(0, n, 5 + 3 * n), model.tokenizer)[0] for n in range(3)]
    return collate(examples, padded_length(max(map(length, examples))), model.pads, model.device)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_those_of_eager_attention(run: RunConfig, family: str, way: str) -> None:
    if way == "both" and family not in {"bert", "llama", "t5"}:
        pytest.skip("each alone is tried")
    expected = _gradients(warm_model(run, SpeedSection(device="cpu", attention="eager")))
    if family in EAGER_ALONE and way != "checkpointing":
        with pytest.raises(InputError, match=r"attention = 'fixed': models of type .* have eager attention alone"):
            warm_model(run, WAYS[way])
        return
    if (family, way) == ("t5", "both"):  # its position bias is recomputed with a gradient, which no CPU kernel takes
        with pytest.raises(InputError, match="gives no gradient for each example"):
            warm_model(run, WAYS[way])
        return
    model = warm_model(run, WAYS[way])
    found = _gradients(model)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    torch.testing.assert_close(_gradients(model), found, rtol=0, atol=0)  # a second step finds nothing left behind
    shapes = tried_shapes(model, 128)
    assert (max(rows for rows, _ in shapes.all()) == 1) == (family == "mixtral")


def test_a_shared_projection_is_refused_under_checkpointing_too(make_run: MakeRun, tmp_path: Path) -> None:
    """The forward pass keeps nothing there: only in the backward pass it shows that positions belong to no example."""
    folder = save_tiny("deberta-v2", tmp_path / "base")
    run = make_run(model={"base": str(folder)}, adapter={"targets": ["query_proj"]}, task={"max_length": 32})
    for speed in (SpeedSection(device="cpu"), WAYS["checkpointing"]):
        with pytest.raises(InputError, match="something else than one row for each example"):
            warm_model(run, speed)


def test_a_row_without_padding_takes_the_same_kernel(make_run: MakeRun, tmp_path: Path) -> None:
    """transformers' own way gives no mask then: bits of other rows would show whether one row is padded."""
    folder = save_tiny("llama", tmp_path / "base")
    run = make_run(model={"base": str(folder)}, adapter={"targets": "auto"}).model_copy(
        update={"task": CausalLM(kind="causal-lm", form="text", max_length=32)}
    )
    masks: list[bool] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def watched(*given: object, attn_mask: torch.Tensor | None = None, **named: object) -> torch.Tensor:
        masks.append(attn_mask is not None and attn_mask.dtype == torch.bool)
        result: torch.Tensor = real(*given, attn_mask=attn_mask, **named)  # type: ignore[arg-type]
        return result

    model = warm_model(run, WAYS["fixed"])
    example = model.made_up(0, 1)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
        model.task.losses(model.module, collate([example, example], length(example), model.pads, model.device))
    assert masks == [True] * 2


def test_threads_that_cross_keep_the_kernel_until_the_last_has_left() -> None:
    """The choice is one of the whole process, and each GPU of an institution has a thread of its own."""
    one, first, second = _OneKernel(), threading.Event(), threading.Event()

    def enters_first() -> None:
        with one.only(SDPBackend.FLASH_ATTENTION):
            first.set()
            assert second.wait(20)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(enters_first)
        assert first.wait(20)
        with one.only(SDPBackend.FLASH_ATTENTION):
            second.set()
            running.result()
            assert not torch.backends.cuda.math_sdp_enabled()
    assert torch.backends.cuda.math_sdp_enabled()


def test_another_kernel_waits_until_all_have_left_the_first() -> None:
    one, order = _OneKernel(), list[str]()

    def enters_second() -> None:
        with one.only(SDPBackend.EFFICIENT_ATTENTION):
            order.append("second")
            assert not torch.backends.cuda.flash_sdp_enabled()

    with ThreadPoolExecutor(1) as pool:
        with one.only(SDPBackend.FLASH_ATTENTION):
            running = pool.submit(enters_second)
            time.sleep(0.2)
            order.append("first")
        running.result(20)
    assert order == ["first", "second"]
    assert torch.backends.cuda.math_sdp_enabled()
