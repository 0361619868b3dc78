"""Memory that does not suffice for every draw, found out before a run and not in the rounds that draw much."""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MakeRun
from support.installations import Asking, kinds, write_site
from support.sites import make_records

from confide.client import memory
from confide.client.batches import BatchedUnits, batch_units
from confide.client.memory import fullest, try_fullest
from confide.client.preparation import model_of
from confide.client.site import Site, open_site
from confide.client.units import UnitTable
from confide.common.batches import padded_length
from confide.common.models import hash_model
from confide.common.privacy.coins import CoinSource
from confide.common.privacy.plan import Plan, PrivacyPlan
from confide.common.privacy.step import private_step
from confide.common.run_config import RunConfig, lock
from confide.common.warm_model import WarmModel, forget_models, warm_model


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    return lock(make_run(local={"sampling_probability": 1.0, "nominal_units": 20}), hash_model(base_folder))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Plan, list[Any]]]]:
    """The plan and the micro-batches of every step that is tried; nothing was tried before."""
    taken: list[tuple[Plan, list[Any]]] = []

    def looked_at(plan: Plan, coins: CoinSource, units: Any, *rest: Any) -> Any:
        taken.append((plan, list(units.micro_batches([]))))
        return private_step(plan, coins, units, *rest)

    monkeypatch.setattr(memory, "private_step", looked_at)
    forget_models()
    yield taken
    forget_models()


@pytest.mark.parametrize("tokens", [16, 100, 1024, 2048, 8192])
@pytest.mark.parametrize("max_length", [128, 384, 520, 600, 1032])
@pytest.mark.parametrize("max_rows", [10, 227, 10_000])
def test_no_micro_batch_takes_more_than_the_fuller_of_the_two_that_are_tried(
    tokens: int, max_length: int, max_rows: int
) -> None:
    """However much a model takes for hidden states (a), attention weights (b) and gradients (c)."""
    units = BatchedUnits(UnitTable([]), 0, tokens, max_rows, torch.device("cpu"))
    tried = fullest(units, padded_length(max_length))
    possible = [(units.most_rows(padded), padded) for padded in range(8, padded_length(max_length) + 1, 8)]
    for a, b, c in product([0, 1, 20, 400, 8000], repeat=3):
        taken, enough = (
            max(a * rows * length + b * rows * length**2 + c * rows for rows, length in shapes)
            for shapes in (possible, tried)
        )
        assert taken <= enough
    for (rows, length), (fewer, shorter) in zip(tried, [(0, 1), (1, 0)], strict=True):
        assert (rows - fewer) * (length - shorter) < tokens, "nor is more tried than has to be"


@pytest.mark.parametrize("tokens", [16, 100, 1024])
def test_both_are_tried_once_for_a_model_with_everything_that_takes_memory(
    make_run: MakeRun, steps: list[tuple[Plan, list[Any]]], tokens: int
) -> None:
    model = warm_model(make_run(), "cpu")
    try_fullest(model, tokens)
    try_fullest(model, tokens)
    [(_, batches)] = steps
    shapes = [tuple(batch["input_ids"].shape) for batch, _ in batches]
    assert shapes == fullest(batch_units(UnitTable([]), model, tokens), 64)
    for batch, unit_B in batches:
        whole = batch["attention_mask"].all(dim=1).tolist()
        assert whole == [False] + [True] * (len(whole) - 1), "one is masked"
        assert len(unit_B) == len(whole) == len(set(unit_B)) + (len(whole) > 1), "one unit has two examples"


def test_a_run_without_privacy_does_not_spare_the_trial_of_a_private_step(
    make_run: MakeRun, steps: list[tuple[Plan, list[Any]]], tmp_path: Path
) -> None:
    """Both have the same warm model, and a step without privacy takes less."""
    site = open_site(write_site(tmp_path))
    for privacy in ({"unit": "none", "noise_multiplier": None}, {}):
        assert model_of(make_run(privacy=privacy), site).tried == {1024}
    assert [type(plan) for plan, _ in steps] == [PrivacyPlan]


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, MemoryError])
def test_an_institution_whose_memory_is_too_small_for_some_draw_declines_the_offer(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    """Whatever its records are: here they would all fit."""
    reasons: list[BaseException] = []
    losses: Callable[..., torch.Tensor] = WarmModel.losses

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
    assert "tokens_per_micro_batch = 1024: no step can be taken of 16 rows of 64 tokens (CUDA out of memory" in said
    assert "more lines" not in said
    assert said.endswith("; lower it, or free memory")
    assert not large.ledger.account().studies, "nothing is opened"
    small = site(512)
    assert kinds(Asking(run, lambda: small).offer()) == ["accepted"]
    forget_models()
