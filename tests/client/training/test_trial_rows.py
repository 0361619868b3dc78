"""The made-up rows of the trial of shapes show a gradient at every place, so that a kernel cannot hide from them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeRun
from support.kinds import of_kind
from support.sites import flatten
from support.speed import CPU

from confide.client.training import tried_rows
from confide.client.training.trial import tried_shapes
from confide.common.data.batches import length
from confide.common.data.shapes import public_shapes
from confide.common.model.adapter import get_state
from confide.common.model.warm_model import WarmModel, forget_models, warm_model


@pytest.fixture(autouse=True)
def untried() -> Iterator[None]:
    """Let no trial of another test stand for one of these."""
    forget_models()
    yield
    forget_models()


def test_rows_of_the_trial_are_as_long_and_as_short_as_a_length_allows(make_run: MakeRun) -> None:
    rows = tried_rows.made_up_rows(warm_model(make_run(), CPU), public_shapes(64, 1024, 10_000))
    sizes = {padded: tuple(map(length, pair)) for padded, pair in rows.items()}
    assert sizes == {16: (16, 2), 24: (24, 17), 32: (32, 25), 40: (40, 33), 48: (48, 41), 64: (64, 49)}


def _grown(model: WarmModel) -> bool:
    """Return whether the adapter is as large as a server may send it."""
    return float(np.linalg.norm(flatten(get_state(model.module)))) > 500


PLANTS: dict[str, Callable[[WarmModel, torch.Tensor], torch.Tensor]] = {
    "few rows": lambda model, padded_B: padded_B * (len(padded_B) < 4),
    "few rows of more than a token": lambda model, padded_B: (padded_B > 1) * (len(padded_B) < 4),
    "few rows, large weights": lambda model, padded_B: padded_B * (len(padded_B) < 4) * _grown(model),
    "its first place, large weights": lambda model, padded_B: padded_B * _only(padded_B, 0) * _grown(model),
    "its last place, large weights": lambda model, padded_B: padded_B * _only(padded_B, -1) * _grown(model),
}


def _only(like_B: torch.Tensor, place: int) -> torch.Tensor:
    chosen_B = torch.zeros_like(like_B)
    chosen_B[place] = 1
    return chosen_B


QUICK = ["few rows of more than a token", "few rows, large weights", "its last place, large weights"]


@pytest.mark.parametrize("kind", ["text-classification", pytest.param("token-classification", marks=pytest.mark.waits)])
@pytest.mark.parametrize(
    "plant", [plant if plant in QUICK else pytest.param(plant, marks=pytest.mark.waits) for plant in PLANTS]
)
def test_a_kernel_that_a_padded_row_selects_is_found(
    kind: str, plant: str, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile reading planted these: the short row had no gradient, or the large weights left none."""
    model, real = warm_model(of_kind(make_run(), kind), CPU), WarmModel.losses

    def losses(own: WarmModel, batch: Any) -> torch.Tensor:
        mask_BT = batch["attention_mask"]
        padded_B = mask_BT.sum(dim=1) * (mask_BT.min(dim=1).values == 0)
        return real(own, batch) * (1 + 1e-4 * PLANTS[plant](own, padded_B))

    monkeypatch.setattr(WarmModel, "losses", losses)
    counts = {rows for rows, _ in tried_shapes(model, 256).all()}
    assert min(counts) >= 4 if plant.startswith("few") else counts == {1}
