"""Memory that does not suffice for every draw, found out before a run and not in the rounds that draw much."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MakeRun
from support.installations import Asking, kinds, write_site
from support.sites import make_records, make_table
from support.toy import make_plan

from confide.client.batches import batch_units
from confide.client.memory import try_fullest
from confide.client.site import Site, open_site
from confide.common.models import hash_model
from confide.common.run_config import RunConfig, lock
from confide.common.warm_model import WarmModel, forget_models

PLAN = make_plan(sampling_probability=0.5)


@pytest.fixture
def run(make_run: MakeRun, base_folder: Path) -> RunConfig:
    return lock(make_run(local={"sampling_probability": 1.0, "nominal_units": 20}), hash_model(base_folder))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Rows and tokens of every micro-batch that a gradient is taken of; nothing was tried before."""
    shapes: list[tuple[int, int]] = []
    losses = WarmModel.losses

    def looked_at(model: WarmModel, batch: Any) -> torch.Tensor:
        shapes.append(tuple(batch["input_ids"].shape))
        return losses(model, batch)

    monkeypatch.setattr(WarmModel, "losses", looked_at)
    forget_models()
    yield shapes
    forget_models()


@pytest.mark.parametrize("tokens", [16, 100, 1024])
@pytest.mark.parametrize("groups", [None, 5])
def test_no_draw_makes_a_fuller_micro_batch_than_the_two_that_were_tried(
    model: WarmModel, seen: list[tuple[int, int]], tokens: int, groups: int | None
) -> None:
    model.tried.clear()
    try_fullest(PLAN, model, tokens)
    tried = seen.copy()
    assert len(tried) == 4, "each with one before it"
    units = batch_units(make_table(model, make_records(60, groups=groups), 60), model, tokens)
    for batch, _ in units.micro_batches(list(range(units.num_units))):
        rows, padded = batch["input_ids"].shape
        for grows in (lambda r, _: r, lambda r, p: r * p, lambda r, p: r * p * p):
            assert grows(rows, padded) <= max(grows(*shape) for shape in tried)
    try_fullest(PLAN, model, tokens)
    assert seen == tried, "once for a model"


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
    assert not large.ledger.account().studies, "nothing is opened"
    small = site(512)
    assert kinds(Asking(run, lambda: small).offer()) == ["accepted"]
    forget_models()
