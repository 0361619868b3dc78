"""The public shapes of micro-batches, and how rows are cut into them."""

from itertools import combinations_with_replacement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confide.common.data.shapes import MAX_SHAPES, Shapes, one_row_each, public_shapes

BOUNDS = {"tokens": st.integers(1, 40_000), "max_rows": st.integers(1, 10_000)}


@given(longest=st.integers(8, 8192), **BOUNDS)
def test_there_are_at_most_32_shapes_within_their_bounds(longest: int, tokens: int, max_rows: int) -> None:
    shapes = public_shapes(longest, tokens, max_rows).all()
    assert 1 <= len(shapes) <= MAX_SHAPES
    assert all(rows == 1 or (rows * length <= tokens and rows <= max_rows) for rows, length in shapes)


@given(longest=st.integers(8, 8192), **BOUNDS)
def test_every_length_has_its_full_shape_first(longest: int, tokens: int, max_rows: int) -> None:
    by_length = public_shapes(longest, tokens, max_rows).by_length
    assert list(by_length) == sorted(by_length)
    for length, counts in by_length.items():
        most = max(1, min(max_rows, tokens // length))
        assert counts[0] == (most if most <= 4 else most - most % 4)
        assert list(counts) == sorted(set(counts), reverse=True)


@pytest.mark.parametrize("longest", [8, 9, 64, 100, 128, 512, 8192])
def test_a_row_is_padded_by_its_own_tokens_to_no_more_than_the_longest(longest: int) -> None:
    shapes = public_shapes(longest, 1024, 10_000)
    padded = [shapes.padded(tokens) for tokens in range(longest + 1)]
    assert all(length >= tokens for tokens, length in enumerate(padded))
    assert padded[-1] == -(-longest // 8) * 8
    assert all(length <= max(16, tokens * 3 // 2) for tokens, length in enumerate(padded)), "nor much more than it has"


def test_one_row_each_has_the_same_lengths() -> None:
    for longest in (8, 100, 8192):
        alone = one_row_each(longest)
        assert list(alone.by_length) == list(public_shapes(longest, 1024, 10_000).by_length)
        assert set(alone.by_length.values()) == {(1,)}


@given(counts=st.lists(st.integers(0, 70), min_size=6, max_size=6), tokens=st.integers(1, 1024))
def test_a_cut_holds_every_row_once_in_a_shape_that_is_its_own(counts: list[int], tokens: int) -> None:
    shapes = public_shapes(64, tokens, 10_000)
    lengths = [length for length, count in zip(reversed(shapes.by_length), counts, strict=True) for _ in range(count)]
    remaining = list(lengths)
    for shape, count in shapes.cover(lengths):
        assert 1 <= count <= shape[0]
        rows, padded = shape
        assert rows in shapes.by_length[padded]
        assert remaining[:count] == [padded] * count, "a longer row has more masked keys: last bits change"
        del remaining[:count]
    assert remaining == []


def test_no_cut_into_the_same_shapes_costs_less() -> None:
    """Against every cut of up to six micro-batches, by trying all of them."""
    counts = (16, 4, 2, 1)
    cuts = [cut for number in range(7) for cut in combinations_with_replacement(counts, number)]
    for rows in range(1, 30):
        least = min(sum(cut) * 64 + 64 * len(cut) for cut in cuts if sum(cut) >= rows)
        found = [shape for shape, _ in Shapes({64: counts}).cover([64] * rows)]
        assert sum(number * 64 + 64 for number, _ in found) == least


def test_few_rows_take_a_small_shape() -> None:
    assert list(public_shapes(64, 1024, 10_000).cover([16] * 5)) == [((8, 16), 5)]
