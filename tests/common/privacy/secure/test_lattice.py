"""Guarantee: one unit moves the integer sum by norm at most 2**bits, exactly."""

import numpy as np
import pytest
import torch
from support.planting import Planted, require_caught
from support.toy import make_plan

from confide.common.privacy.clipping import clip
from confide.common.privacy.secure import lattice
from confide.common.privacy.secure.sharing import MAX_COORDINATES, Sharing


def to_grid(rows: torch.Tensor, clip_norm: float, bits: int) -> torch.Tensor:
    return lattice.to_grid(rows, make_plan(clip_norm=clip_norm), Sharing(3, 1, bits, 2**40))


def _norms_squared(rows: torch.Tensor) -> list[int]:
    return [sum(int(entry) ** 2 for entry in row) for row in rows]


def _hostile(size: int) -> torch.Tensor:
    """Rows that a server's weights can make: one entry, all equal, halves of a step, far too long, tiny, not finite."""
    rows = torch.zeros(9, size)
    rows[0, 0] = 1e6
    rows[1] = -1.0
    rows[2] = 1.5 / 2**19
    rows[3] = torch.linspace(-3, 3, size)
    rows[4] = 1e-30
    rows[5, :3] = torch.tensor([1.0, -1.0, 2.0**-24])
    rows[6] = torch.nan
    rows[7, 1] = torch.inf
    rows[8] = torch.randn(size, generator=torch.Generator().manual_seed(1)) * 100
    return rows


@pytest.mark.parametrize("bits", range(10, 20))
@pytest.mark.parametrize("clipping", ["automatic", "abadi"])
@pytest.mark.parametrize("clip_norm", [1e-6, 0.3, 1.0, 1e6])
def test_a_row_has_norm_at_most_one_clip_exactly(bits: int, clipping: str, clip_norm: float) -> None:
    plan = make_plan(clipping=clipping, clip_norm=clip_norm)
    found = to_grid(clip(_hostile(700), plan), clip_norm, bits)
    assert found.dtype == torch.int64
    assert max(_norms_squared(found)) <= 4**bits
    assert max(_norms_squared(found)) > 0.9 * 4**bits


def test_rows_truncate_towards_zero() -> None:
    rows = torch.tensor([[0.99, -0.99, 1.99, -1.99]]) / 2**10
    assert to_grid(rows, 1.0, 10).tolist() == [[0, 0, 1, -1]]


def test_a_row_that_is_longer_than_the_clip_counts_as_zero() -> None:
    rows = torch.tensor([[1.0, 0.0], [1.001, 0.0], [0.8, 0.7], [0.6, 0.8], [-1e30, 0.0], [torch.nan, 0.5]])
    assert (to_grid(rows, 1.0, 19) != 0).any(dim=1).tolist() == [True, False, False, True, False, False]


def test_squares_that_wrap_are_no_short_row() -> None:
    """2**26 entries of 2**19: the squares add up to 2**64, which int64 shows as 0. So that many are refused."""
    assert MAX_COORDINATES * 4**19 < 2**63
    with pytest.raises(ValueError, match="trained numbers, a secure sum takes at most 33,554,431"):
        to_grid(torch.empty(1, MAX_COORDINATES + 1, device="meta"), 1.0, 19)
    long = torch.full((1, 4096), 2.0**12)  # each square is 2**62 at 19 bits: the sum would wrap to 0
    assert not to_grid(long, 1.0, 19).any()


def test_removing_any_row_moves_the_sum_by_that_row() -> None:
    rows = clip(torch.randn(40, 500, generator=torch.Generator().manual_seed(0)), make_plan(clipping="abadi"))
    grid = to_grid(rows, 1.0, 19)
    whole = grid.sum(dim=0)
    for index in range(40):
        without = to_grid(torch.cat([rows[:index], rows[index + 1 :]]), 1.0, 19).sum(dim=0)
        assert torch.equal(whole - without, grid[index])
    assert np.mean(_norms_squared(grid)) > 0.99 * 4**19


PLANTED: Planted = {
    "rounds-to-nearest": ("torch.trunc(", "torch.round(", test_rows_truncate_towards_zero),
    "long-rows-stay": (
        "steps_UP.masked_fill_(~fits_U1, 0)",
        "steps_UP",
        test_a_row_that_is_longer_than_the_clip_counts_as_zero,
    ),
    "squares-that-wrap": (
        "scaled_UP.masked_fill_(~inside_U1, 0.0)",
        "scaled_UP",
        test_squares_that_wrap_are_no_short_row,
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_caught(monkeypatch, lattice, PLANTED[name])
