"""Every shape of a micro-batch is tried before a run: for its memory, and for the bits of its rows."""

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeRun
from support.installations import Asking, kinds, write_site
from support.sites import flatten, make_records
from support.speed import CPU
from support.tiny_bert import tiny_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, OlmoeConfig, OlmoeForCausalLM

from confide.client.site.installation import Site, open_site
from confide.client.training import trial, tried_rows
from confide.client.training.shares import model_of
from confide.client.training.trial import Seen, Sight, agreeing, tried_shapes
from confide.common.config.run import RunConfig, lock
from confide.common.config.simulation import SpeedSection
from confide.common.data.batches import collate, shortened
from confide.common.data.shapes import Shape, Shapes, one_row_each, public_shapes
from confide.common.model.adapter import get_state, schema, set_state
from confide.common.model.base_models import hash_model
from confide.common.model.warm_model import WarmModel, forget_models, warm_model
from confide.common.privacy import step
from confide.common.protocol.gate import RECEIVED_NORM_BOUND

Losses = Callable[..., torch.Tensor]
ASKED = Shapes({16: (8, 4, 2), 24: (4,)})


@pytest.fixture
def fresh(make_run: MakeRun) -> Iterator[WarmModel]:
    """A model with which nothing was tried."""
    forget_models()
    yield warm_model(make_run(), CPU)
    forget_models()


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    return lock(make_run(local={"sampling_probability": 1.0, "nominal_units": 20}), hash_model(base_folder))


def _seen(**bits: dict[Shape, set[bytes]]) -> Seen:
    """A sight of 16 tokens for each name, which says weights and way; and one of 24 tokens on which all agree."""
    seen: Seen = {Sight(16, 0, *name.split("_")): by_shape for name, by_shape in bits.items()}
    return {**seen, Sight(24, 0, "usual", "whole"): {(4, 24): {b"x"}}}


def test_several_devices_use_the_shapes_that_each_of_them_may_use(
    fresh: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = public_shapes(64, 256, 100)
    of = {1: {**asked.by_length, 16: asked.by_length[16][:1]}, 2: {**asked.by_length, 24: (1,)}}
    threads = set[int]()

    def tried(model: WarmModel, tokens: int) -> Shapes:
        threads.add(threading.get_ident())
        return Shapes(of[int(model.adversarial)]) if model.adversarial else asked

    monkeypatch.setattr(trial, "tried_shapes", tried)
    others = tuple(replace(fresh, adversarial=float(number)) for number in of)
    found = tried_shapes(replace(fresh, copies=others), 256)
    assert found.by_length == {**asked.by_length, 16: asked.by_length[16][:1], 24: (1,)}
    assert threading.get_ident() not in threads


def test_every_device_is_tried(fresh: WarmModel, make_run: MakeRun) -> None:
    forget_models()
    copy = warm_model(make_run(), CPU)
    assert tried_shapes(replace(fresh, copies=(copy,)), 256) == tried_shapes(fresh, 256)
    assert copy.tried


SAME: dict[Shape, set[bytes]] = {(rows, 16): {b"a"} for rows in ASKED.by_length[16]}


def test_shapes_in_which_all_rows_agree_are_used() -> None:
    assert agreeing(ASKED, _seen(usual_whole=SAME, largest_whole=SAME), set()) == ASKED


@pytest.mark.parametrize("rows", [4, 2])
@pytest.mark.parametrize("sight", ["usual_whole", "largest_whole", "usual_kept", "usual_prefix"])
def test_a_shape_in_which_a_row_differs_is_not_used(sight: str, rows: int) -> None:
    """A row differs if it is not that of the full shape."""
    found = agreeing(ASKED, _seen(**{"usual_whole": SAME, sight: {**SAME, (rows, 16): {b"b"}}}), set())
    assert found.by_length == {16: tuple(kept for kept in (8, 4, 2) if kept != rows), 24: (4,)}


@pytest.mark.parametrize("rows", [4, 2])
def test_a_shape_in_which_a_row_differs_by_its_place_is_not_used(rows: int) -> None:
    found = agreeing(ASKED, _seen(usual_whole={**SAME, (rows, 16): {b"a", b"b"}}), set())
    assert found.by_length == {16: tuple(kept for kept in (8, 4, 2) if kept != rows), 24: (4,)}


@pytest.mark.parametrize("full", [{b"a", b"b"}, {tried_rows.NOTHING}], ids=["differs within itself", "shows nothing"])
def test_a_length_whose_full_shape_is_no_measure_has_each_row_alone(full: set[bytes]) -> None:
    found = agreeing(ASKED, _seen(usual_whole={**SAME, (8, 16): full}), set())
    assert found.by_length == {16: (1,), 24: (4,)}


def test_an_uneven_shape_is_not_used() -> None:
    """Its threads' shares do not fill whole vectors."""
    left = agreeing(ASKED, _seen(usual_whole=SAME), {(4, 16)})
    assert left.by_length == {16: (8, 2), 24: (4,)}
    assert agreeing(ASKED, _seen(usual_whole=SAME), {(8, 16)}).by_length[16] == (1,)


def test_under_the_largest_weights_a_saturated_row_may_show_nothing() -> None:
    nothing = {shape: {tried_rows.NOTHING} for shape in SAME}
    assert agreeing(ASKED, _seen(usual_whole=SAME, largest_whole=nothing), set()) == ASKED


def test_the_trial_sees_every_shape_and_its_first_middle_and_last_place(
    fresh: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, batches, losses = public_shapes(64, 1024, 10_000), list[Any](), WarmModel.losses

    def watching(model: WarmModel, batch: Any) -> torch.Tensor:
        batches.append((batch["input_ids"].shape, float(np.linalg.norm(flatten(get_state(model.module))))))
        return losses(model, batch)

    monkeypatch.setattr(WarmModel, "losses", watching)
    seen = trial._try(fresh, asked, "here")
    alone = {(1, padded) for padded in asked.by_length}  # where the short rows are found
    assert {tuple(shape) for shape, _ in batches} == set(asked.all()) | alone
    assert any(0.99 * RECEIVED_NORM_BOUND < norm <= RECEIVED_NORM_BOUND for _, norm in batches)
    for padded, usable in asked.by_length.items():
        own = [by_shape for sight, by_shape in seen.items() if sight.padded == padded]
        assert len(own) == 4, "two rows of the length, under two kinds of weights"
        assert all(set(by_shape) == {(rows, padded) for rows in usable} for by_shape in own)


def test_shapes_are_tried_once_for_a_model_and_a_bound_and_weights_stay(
    fresh: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, tries, real = get_state(fresh.module), list[str](), trial._try
    monkeypatch.setattr(trial, "_try", lambda model, shapes, name: tries.append(name) or real(model, shapes, name))
    found = [tried_shapes(fresh, tokens) for tokens in (1024, 512, 1024)]
    assert found[0] is found[2]
    assert tries == ["tokens_per_micro_batch = 1024", "tokens_per_micro_batch = 512"]
    np.testing.assert_array_equal(flatten(get_state(fresh.module)), flatten(before))


def _disturbed(monkeypatch: pytest.MonkeyPatch, disturb: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Losses as a kernel would give them that adds in another order for some rows: a factor for each row."""
    real: Losses = WarmModel.losses
    monkeypatch.setattr(
        WarmModel, "losses", lambda model, batch: real(model, batch) * disturb(torch.ones(len(batch["input_ids"])))
    )


def test_a_kernel_that_few_rows_select_is_found(fresh: WarmModel, monkeypatch: pytest.MonkeyPatch) -> None:
    _disturbed(monkeypatch, lambda rows_B: rows_B + 1e-6 * (len(rows_B) < 12))
    by_length = tried_shapes(fresh, 1024).by_length
    assert by_length[64] == (16,)
    assert by_length[16] == (64, 20)


@pytest.mark.parametrize("place", [0, 7, -1], ids=["first", "in the middle", "last"])
def test_a_kernel_that_a_place_selects_is_found(fresh: WarmModel, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    def disturb(rows_B: torch.Tensor) -> torch.Tensor:
        rows_B[place % len(rows_B)] += 1e-6
        return rows_B

    _disturbed(monkeypatch, disturb)
    assert tried_shapes(fresh, 1024).by_length == one_row_each(64).by_length


def test_a_model_that_shows_no_gradient_computes_every_row_alone(
    fresh: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    _disturbed(monkeypatch, lambda rows_B: 0 * rows_B)
    assert tried_shapes(fresh, 1024) == one_row_each(64)


def test_a_kept_prefix_is_tried_too(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_models()
    model, real = warm_model(make_run(adapter={"layers": "top:1"}), CPU), WarmModel.lower_states
    assert {sight.way for sight in trial._try(model, public_shapes(16, 64, 9), "")} == {"gradient", "prefix"}
    states: Losses = lambda model, batch: real(model, batch) * (1 + 0.02 * (len(batch["input_ids"]) < 4))  # noqa: E731
    monkeypatch.setattr(WarmModel, "lower_states", states)
    assert tried_shapes(model, 64).by_length[16] == (4,)
    forget_models()


def test_a_mixture_of_experts_computes_every_row_alone(tmp_path: Path, make_run: MakeRun) -> None:
    """Other rows decide with how many rows an expert is multiplied: no trial of shapes finds what that changes."""
    shared = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    tokenizer = tiny_tokenizer()
    config = OlmoeConfig(
        **shared, vocab_size=len(tokenizer), intermediate_size=32, num_experts=4, num_experts_per_tok=2
    )
    OlmoeForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    forget_models()
    run = make_run(model={"base": str(tmp_path)}, adapter={"targets": ["q_proj", "v_proj"]})
    assert tried_shapes(warm_model(run, CPU), 1024) == one_row_each(64)
    forget_models()


def _llama(folder: Path, make_run: MakeRun, intermediate_size: int) -> WarmModel:
    """A causal model, whose activation is SiLU, with a width of its own."""
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        intermediate_size=intermediate_size,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    forget_models()
    return warm_model(make_run(model={"base": str(folder)}, adapter={"targets": ["q_proj", "v_proj"]}), CPU)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Set the number of threads for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.waits
def test_threads_that_split_a_vector_are_not_taken(
    tmp_path: Path, make_run: MakeRun, threads: Callable[[int], None]
) -> None:
    """SiLU has other code for what does not fill a vector; with 3 threads those would be numbers amid the rows."""
    model = _llama(tmp_path, make_run, 320)
    threads(3)
    usable = tried_shapes(model, 1024)
    assert torch.get_num_threads() == 2
    assert all(counts[0] > 1 for counts in usable.by_length.values())
    forget_models()


def test_sizes_that_follow_from_the_numbers_are_found(fresh: WarmModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no configuration names experts."""
    task, losses = type(fresh.task), type(fresh.task).losses

    def routed(own: Any, module: Any, batch: Any) -> torch.Tensor:
        chosen = torch.ones(int((batch["input_ids"] % 3 == 0).sum()), 2)
        return losses(own, module, batch) + 0 * chosen.sum()

    monkeypatch.setattr(task, "losses", routed)
    assert tried_shapes(fresh, 1024) == one_row_each(64)


COMPANY: dict[str, Callable[[Any], Any]] = {
    "every other place": lambda batch: torch.arange(len(batch["label"])) % 2,
    "a statistic over the batch": lambda batch: float(batch["attention_mask"].sum(dim=1).max()),
    "no row is padded": lambda batch: float(batch["attention_mask"].all()),
}


@pytest.mark.parametrize("of", COMPANY.values(), ids=COMPANY)
def test_a_loss_that_depends_on_its_company_is_found(
    fresh: WarmModel, monkeypatch: pytest.MonkeyPatch, of: Callable[[Any], Any]
) -> None:
    """A hostile reading planted these, and a trial whose batches were all alike did not see them."""
    real: Losses = WarmModel.losses
    monkeypatch.setattr(WarmModel, "losses", lambda model, batch: real(model, batch) * (1 + 1e-5 * of(batch)))
    assert tried_shapes(fresh, 1024).by_length[64] == (1,)


def test_the_gradient_goes_through_the_step_s_own_mean_and_clip(
    fresh: WarmModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, rows = step.clip, list[int]()
    monkeypatch.setattr(
        step, "clip", lambda gradients_UP, plan: rows.append(len(gradients_UP)) or real(gradients_UP, plan)
    )
    tried_shapes(fresh, 128)
    assert max(rows) == 7, "eight rows of 16 tokens, the last of which stays open"


def test_in_bfloat16_a_row_has_the_same_bits_in_every_tried_shape_and_company(make_run: MakeRun) -> None:
    """Another precision takes other kernels: each passes the trial by itself."""
    forget_models()
    model = warm_model(make_run(), SpeedSection(device="cpu", precision="bfloat16"))
    base = [p for name, p in model.module.encoder.named_parameters() if "lora" not in name]
    assert {p.dtype for p in base} == {torch.bfloat16}
    shapes = tried_shapes(model, 128)
    model.wrapped.enable_hooks()
    for state in tried_rows.trial_weights(schema(model.module)).values():
        set_state(model.module, state)
        for padded, counts in shapes.by_length.items():
            bits = set[bytes]()
            own = collate([shortened(model.made_up(0, 1000), padded)], padded, model.pads, model.device)
            for rows, company in itertools.product(counts, (0, 100, 200)):
                others = tried_rows.texts(model, (rows, padded), company)
                batch = {name: torch.cat([row, others[name][1:]]) for name, row in own.items()}
                bits.add(tried_rows.clipped_rows(model, batch)[0].numpy().tobytes())
            assert len(bits) == 1, f"rows of {padded} tokens"
    forget_models()


@pytest.mark.parametrize("privacy", [{"unit": "none", "noise_multiplier": None}, {}])
def test_the_client_tries_whatever_the_privacy_of_a_run(make_run: MakeRun, tmp_path: Path, privacy: Any) -> None:
    site = open_site(write_site(tmp_path))
    tokens = site.config.compute.tokens_per_micro_batch
    assert list(model_of(make_run(privacy=privacy), site).tried) == [(tokens, torch.get_num_threads())]


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, MemoryError])
def test_an_institution_with_too_little_memory_for_a_shape_declines_the_offer(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """Whatever its records are: here they would all fit."""
    reasons: list[BaseException] = []
    losses: Losses = WarmModel.losses

    def in_little_memory(model: WarmModel, batch: Any) -> torch.Tensor:
        rows, padded = batch["input_ids"].shape
        if rows * padded**2 > 512 * 64:  # as attention grows
            raise kind("CUDA out of memory. Tried to allocate 2.00 GiB\nmore lines")
        return losses(model, batch)

    def site(tokens: int) -> Site:
        compute = {"tokens_per_micro_batch": tokens}
        return open_site(write_site(tmp_path, make_records(1), compute=compute)).with_report(reasons.append)

    monkeypatch.setattr(WarmModel, "losses", in_little_memory)
    forget_models()
    large = site(1024)
    assert kinds(Asking(run, lambda: large).offer()) == ["declined"]
    [said] = map(str, reasons)
    assert said.startswith("tokens_per_micro_batch = 1024: no step can be taken of ")
    assert "(CUDA out of memory" in said
    assert "more lines" not in said
    assert said.endswith("; lower it, or free memory")
    assert not large.ledger.account().studies, "nothing is opened"
    small = site(512)
    assert kinds(Asking(run, lambda: small).offer()) == ["accepted"]
    forget_models()


def test_a_single_number_fills_no_vector_and_tears_no_shape(fresh: WarmModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A learned temperature, as some models have it, is the same for every row."""
    task, losses = type(fresh.task), type(fresh.task).losses

    def scaled(own: Any, module: Any, batch: Any) -> torch.Tensor:
        return losses(own, module, batch) * torch.sigmoid(torch.tensor(0.5))

    usable = tried_shapes(fresh, 1024)
    monkeypatch.setattr(task, "losses", scaled)
    fresh.tried.clear()
    assert tried_shapes(fresh, 1024) == usable


def test_a_model_that_needs_fewer_threads_takes_none_from_the_next(
    fresh: WarmModel, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client lives for months: the number would only fall."""
    most, tried = {"now": 3}, list[int]()
    monkeypatch.setattr(trial, "filling_threads", lambda sizes, there: min(there, most["now"]))
    monkeypatch.setattr(trial, "_try", lambda *of: tried.append(torch.get_num_threads()))
    monkeypatch.setattr(trial, "computed_by_vector", lambda *of: set())
    monkeypatch.setattr(trial, "follow_from_shape", lambda *of: False)
    threads(3)
    found = list[int]()
    for model, most["now"] in ((fresh, 2), (other := replace(fresh, tried={}), 3), (fresh, 2), (other, 3)):
        tried_shapes(model, 64)
        found.append(torch.get_num_threads())
    assert found == [2, 3, 2, 3]
    assert tried == [3, 2, 3], "once for each model, and again with the fewer"
