"""Speed settings, the prefix cache above all: none of them changes what a step computes."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeRun
from numpy.typing import NDArray
from support.coins import TestCoins
from support.sites import batched, flatten, make_records, make_table, random_state, train_sum
from support.speed import CPU
from support.toy import make_plan

from confide.client.training.batches import BatchedUnits, with_prefixes
from confide.client.training.local_steps import LocalWork, train
from confide.client.training.trial import tried_shapes
from confide.common.config.simulation import SpeedSection
from confide.common.model.lower_layers import find_lower_layers
from confide.common.model.warm_model import WarmModel, forget_models, warm_model
from confide.common.privacy.plan import NoPrivacy, Plan

PLAN = make_plan(sampling_probability=0.5)


@pytest.fixture
def top(make_run: MakeRun) -> WarmModel:
    """The tiny BERT with adapters in its upper layer only."""
    return warm_model(make_run(adapter={"rank": 4, "layers": "top:1"}), CPU)


def _kept(model: WarmModel, folder: Path, **settings: Any) -> BatchedUnits:
    units = with_prefixes(batched(model, make_table(model, make_records(12, **settings))), model, folder)
    assert units.prefixes is not None
    return units


@pytest.mark.parametrize("plan", [PLAN, NoPrivacy(0.5, 5, 6)], ids=["private", "plain"])
@pytest.mark.parametrize("groups", [None, 5])
def test_kept_prefixes_give_the_same_update(top: WarmModel, tmp_path: Path, plan: Plan, groups: int | None) -> None:
    kept = _kept(top, tmp_path, groups=groups)
    computed = train_sum(plan, top, replace(kept, prefixes=None), TestCoins(1), steps=2)
    given = train_sum(plan, top, kept, TestCoins(1), steps=2)
    np.testing.assert_array_equal(given, computed)  # in any rounding: else a full disk would change a gradient


def test_on_devices_that_differ_a_full_disk_changes_no_bit(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one unit more, whose states no longer fit, would change those of others."""
    forget_models()
    copy = warm_model(make_run(adapter={"rank": 4, "layers": "top:1"}), CPU)
    forget_models()
    first, real = warm_model(make_run(adapter={"rank": 4, "layers": "top:1"}), CPU), WarmModel.lower_states
    model = replace(first, copies=(copy,))
    monkeypatch.setattr(
        WarmModel, "lower_states", lambda own, batch: real(own, batch) * (1.02 if own.wrapped is copy.wrapped else 1.0)
    )
    kept = _kept(model, tmp_path)
    assert {kept.turn(unit) % 2 for unit in range(kept.num_units)} == {0, 1}
    given, computed = (train_sum(PLAN, model, units, TestCoins(1)) for units in (kept, replace(kept, prefixes=None)))
    np.testing.assert_array_equal(given, computed)
    alone = train_sum(PLAN, first, replace(kept, prefixes=None), TestCoins(1))
    assert (given != alone).any(), "the devices differ"
    forget_models()


def test_lower_layers_are_not_computed_again(top: WarmModel, tmp_path: Path) -> None:
    units, calls = _kept(top, tmp_path), []
    stack = next(layers for layers in top.module.modules() if isinstance(layers, torch.nn.ModuleList))
    hooks = [
        layer.attention.register_forward_hook(lambda *_, n=number: calls.append(n))  # type: ignore[misc]
        for number, layer in enumerate(stack)
    ]
    train_sum(PLAN, top, units, TestCoins(1, drawn=True))
    assert set(calls) == {1}
    calls.clear()
    train_sum(PLAN, top, replace(units, prefixes=None), TestCoins(1, drawn=True))
    assert set(calls) == {0, 1}
    for hook in hooks:
        hook.remove()


def test_what_is_kept_belongs_to_its_example(top: WarmModel, tmp_path: Path) -> None:
    """Longer companions, other micro-batches and empty texts move nothing."""
    units = _kept(top, tmp_path, groups=5)
    units.table.units[0].insert(1, {"input_ids": [], "label": 0})
    for tokens in (16, 4096):
        again = with_prefixes(replace(units, shapes=tried_shapes(top, tokens), prefixes=None), top, tmp_path)
        for place in [(unit, 0) for unit in range(units.num_units)]:
            size = len(units.examples([place])[0]["input_ids"])
            alone = top.lower_states(replace(units, prefixes=None).batch([place], (1, size)))[0]
            assert again.prefixes is not None
            read = again.prefixes.take([place], [size], size + 3)[0]
            torch.testing.assert_close(read[:size].float(), alone, atol=0.02, rtol=0.02)
            assert not read[size:].any()


def test_the_file_of_kept_prefixes_has_no_name(top: WarmModel, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    units = _kept(top, folder)
    assert units.prefixes is not None
    assert os.listdir(folder) == []
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_full_disk_costs_time_and_nothing_else(
    top: WarmModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    roomy = _kept(top, tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", full)
    units = with_prefixes(batched(top, make_table(top, make_records(12))), top, tmp_path)
    assert units.prefixes is None
    with_room, without = (train_sum(PLAN, top, given, TestCoins(1, quiet=True)) for given in (roomy, units))
    np.testing.assert_array_equal(without, with_room)


def test_a_model_that_is_adapted_in_every_layer_has_no_prefix(model: WarmModel, tmp_path: Path) -> None:
    units = batched(model, make_table(model, make_records(3)))
    assert with_prefixes(units, model, tmp_path) is units
    with pytest.raises(ValueError, match="nothing below"):
        model.lower_states({})


SETTINGS = {
    "tokens_per_micro_batch": (32, 1e-5),
    "prefix_cache": (False, 0.0),
    "precision": ("bfloat16", 0.05),
    "attention": ("fixed", 1e-5),
    "checkpointing": (True, 0.0),
    "device": ("cpu", 0.0),
}


def test_no_speed_setting_changes_an_update(make_run: MakeRun, tmp_path: Path) -> None:
    """From the same coins every setting gives the same update, up to the rounding that it is about."""
    assert SETTINGS.keys() == SpeedSection.model_fields.keys()

    def update(speed: SpeedSection) -> NDArray[np.float64]:
        model = warm_model(make_run(adapter={"rank": 4, "layers": "top:1"}), speed)
        units = batched(model, make_table(model, make_records(12)), speed.tokens_per_micro_batch)
        if speed.prefix_cache:
            units = with_prefixes(units, model, tmp_path)
        return flatten(train(LocalWork(PLAN, random_state(model), 2, 1.0), model, units, TestCoins(3, quiet=True)))

    usual = update(SpeedSection())
    for name, (value, tolerance) in SETTINGS.items():
        changed = update(SpeedSection(**{name: value}))  # type: ignore[arg-type]
        assert np.linalg.norm(changed - usual) <= tolerance * np.linalg.norm(usual), name


class _Stack(torch.nn.Module):
    """Two layers, the upper one adapted; ``between`` makes the next layer's input of a layer's input and output."""

    def __init__(self, between: Callable[[torch.Tensor, Any], torch.Tensor], layer: type[torch.nn.Module]) -> None:
        super().__init__()
        self.embedding, self.between = torch.nn.Embedding(2, 4), between
        self.layers = torch.nn.ModuleList([layer(4, 4), layer(4, 4)])
        self.requires_grad_(requires_grad=False)
        self.layers[1].lora_B = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.embedding(input_ids)
        for layer in self.layers:
            hidden = self.between(hidden, layer(hidden))
        return hidden


class _Pair(torch.nn.Linear):
    def forward(self, input: torch.Tensor) -> Any:
        return super().forward(input), None


def _states_of(states: torch.Tensor, more: None) -> torch.Tensor:
    return states


@pytest.mark.parametrize(
    ("between", "layer", "is_chain"),
    [
        (lambda hidden, output: output, torch.nn.Linear, True),
        (lambda hidden, output: hidden + output, torch.nn.Linear, False),  # XLM: the stack's layers are no whole ones
        (lambda hidden, output: _states_of(*output), _Pair, False),  # DeBERTa's give two tensors
    ],
    ids=["chain", "residual outside", "pairs"],
)
def test_only_layers_that_hand_on_one_tensor_have_a_prefix(between: Any, layer: Any, is_chain: bool) -> None:
    """Elsewhere a prefix would be wrong, or fail in just those steps that drew somebody, and tell which."""
    assert (find_lower_layers(_Stack(between, layer)) is not None) is is_chain
