import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support import guarantees
from support.toy import make_plan

from confide.common.model.warm_model import WarmModel
from confide.common.privacy.clipping import _norms, clip
from confide.common.privacy.plan import PrivacyPlan

KINDS = ("automatic", "abadi")
INF, NAN = float("inf"), float("nan")


def _clip(rows: list[list[float]], kind: str, clip_norm: float = 1.0) -> list[list[float]]:
    return clip(torch.tensor(rows), make_plan(clipping=kind, clip_norm=clip_norm)).tolist()


@pytest.mark.parametrize("kind", KINDS)
@given(rows=arrays("float32", (4, 7)), clip_norm=st.floats(1e-3, 1e3))
def test_no_row_is_longer_than_the_clip_norm(kind: str, rows: object, clip_norm: float) -> None:
    clipped = clip(torch.tensor(rows), make_plan(clipping=kind, clip_norm=clip_norm))
    assert (clipped.double().norm(dim=1) <= clip_norm * (1 + 1e-6)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_row_of_a_large_adapter_is_longer_than_the_clip_norm(kind: str) -> None:
    """A float32 norm of two million entries is too short by more than rounding explains."""
    rows = 3 * torch.rand(2, 2_000_000, generator=torch.Generator().manual_seed(0))
    clipped = clip(rows, make_plan(clipping=kind))
    assert (clipped.double().norm(dim=1) <= 1 + 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "row", [[NAN, 1.0], [INF, 0.0], [-INF, INF], [3e38, 3e38], [0.0, 0.0]], ids=["nan", "inf", "both", "overflow", "0"]
)
def test_a_row_that_is_not_finite_or_overflows_becomes_zero(kind: str, row: list[float]) -> None:
    assert _clip([row, [0.3, 0.4]], kind)[0] == [0.0, 0.0]


def test_a_unit_that_is_not_finite_contributes_zero_silently() -> None:
    guarantees.check_a_unit_that_is_not_finite_contributes_zero()


def test_automatic_clipping_divides_by_the_norm_plus_a_hundredth() -> None:
    assert _clip([[3.0, 4.0]], "automatic", 2.0)[0] == pytest.approx([3 * 2 / 5.01, 4 * 2 / 5.01], rel=3e-5)
    assert _clip([[0.0, 0.01]], "automatic")[0] == pytest.approx([0, 0.5], rel=3e-5)


def test_abadi_clipping_leaves_short_rows_alone() -> None:
    assert _clip([[3.0, 4.0], [0.3, 0.4]], "abadi")[0] == pytest.approx([0.6, 0.8], rel=3e-5)  # norms are rounded up
    assert _clip([[3.0, 4.0], [0.3, 0.4]], "abadi")[1] == pytest.approx([0.3, 0.4])


@pytest.mark.parametrize("length", [1000, 1024, 2047, 37_634])
def test_a_row_whose_large_entries_swallow_the_small_ones_is_within_the_bound(length: int) -> None:
    """In float32 the square of each small entry is lost beside that of the large one before it in its lane."""
    row = torch.full((1, length), 2.0**-12 * 0.9999)
    row[0, :16] = 1.0
    clipped = clip(row, make_plan(clipping="abadi"))
    assert clipped.double().norm() <= 1 + 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_other_rows(kind: str) -> None:
    row = [0.5, -2.0, 0.25]
    for others in ([], [[9.0, 9.0, 9.0]], [[NAN, INF, 0.0], [3e38, 3e38, 3e38]]):
        assert _clip([*others, row], kind)[-1] == _clip([row], kind)[0]


@pytest.mark.parametrize("length", [1, 7, 1025, 37_634])
def test_a_norm_has_the_bits_that_ieee_754_gives_beside_any_rows(length: int) -> None:
    """A sum in pairs, repeated by NumPy: no library chooses an order by the number of rows."""
    rows = torch.randn(33, length, generator=torch.Generator().manual_seed(0))
    expected = []
    for row in rows.numpy():
        sums = row * row
        while len(sums) > 1:
            half = (len(sums) + 1) // 2
            sums = np.concatenate([sums[: len(sums) - half] + sums[half:], sums[len(sums) - half : half]])
        expected.append(np.float32(np.sqrt(np.float64(sums[0])) * (1 + 2.0**-16)))
    for number in (1, 2, 15, 33):
        assert _norms(rows[:number]).tolist() == expected[:number]


def test_clipping_is_flat_over_all_tensors_head_included(model: WarmModel) -> None:
    guarantees.check_a_unit_counts_as_its_clipped_mean_gradient(model)


@pytest.mark.parametrize("kind", KINDS)
def test_no_units_give_no_rows(kind: str) -> None:
    assert clip(torch.zeros(0, 3), make_plan(clipping=kind)).shape == (0, 3)


@pytest.mark.parametrize("clip_norm", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("clipping", ["automatic", "abadi"])
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_a_row_is_finite_and_within_the_bound_at_every_scale(clip_norm: float, clipping: str, scale: float) -> None:
    plan = PrivacyPlan("record", 0.1, 10, 100, clip_norm, clipping, 1.0, 1e-5)  # type: ignore[arg-type]
    clipped = clip(torch.tensor([[3.0, -4.0]]) * scale, plan)
    assert torch.isfinite(clipped).all()
    assert torch.linalg.vector_norm(clipped.double()) <= clip_norm * (1 + 1e-6)


@pytest.mark.parametrize("clip_norm", [1e38, 1e-30, float("inf"), float("nan")])
def test_a_clip_norm_at_the_ends_of_float32_is_refused(clip_norm: float) -> None:
    """There the factor overflows, or a square vanishes, and the bound with it."""
    with pytest.raises(ValueError, match="clip_norm"):
        PrivacyPlan("record", 0.1, 10, 100, clip_norm, "automatic", 1.0, 1e-5)
