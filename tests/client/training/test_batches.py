from itertools import groupby
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.coins import TestCoins
from support.sites import batched, make_records, make_table, train_sum
from support.toy import make_plan

from confide.client.data.units import UnitTable
from confide.client.training.batches import BatchedUnits
from confide.common.data.shapes import public_shapes
from confide.common.model.warm_model import WarmModel

LENGTHS = st.lists(st.lists(st.integers(1, 30), max_size=4), max_size=8)


def _units(lengths: list[list[int]]) -> UnitTable:
    """Units of examples whose tokens name them: unit u, example e has tokens 10 * u + e + 1."""

    def example(u: int, e: int, n: int) -> dict[str, Any]:
        return {"input_ids": [10 * u + e + 1] * n, "label": e}

    return UnitTable([[example(u, e, n) for e, n in enumerate(unit)] for u, unit in enumerate(lengths)])


def _site(lengths: list[list[int]], tokens: int, longest: int = 30) -> BatchedUnits:
    return BatchedUnits(_units(lengths), {"input_ids": 0}, public_shapes(longest, tokens, 10_000), torch.device("cpu"))


@given(lengths=LENGTHS, tokens=st.integers(1, 300))
def test_every_example_of_every_drawn_unit_comes_once(lengths: list[list[int]], tokens: int) -> None:
    site = _site(lengths, tokens)
    drawn = list(range(0, len(lengths), 2))
    seen = []
    for batch, unit_B in site.micro_batches(drawn):
        rows = zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
        for (ids, mask), unit in zip(rows, unit_B, strict=False):  # more rows only fill up
            example = {"input_ids": [i for i, m in zip(ids, mask, strict=True) if m]}
            assert ids == example["input_ids"] + [0] * (len(ids) - sum(mask))
            seen.append((unit, example["input_ids"]))
    expected = [(u, example["input_ids"]) for u in drawn for example in site.table.units[u]]
    assert sorted(seen) == sorted(expected)


@given(lengths=LENGTHS, tokens=st.integers(1, 300))
def test_the_examples_of_a_unit_stand_side_by_side(lengths: list[list[int]], tokens: int) -> None:
    site = _site(lengths, tokens)
    owners = [unit for _, unit_B in site.micro_batches(list(range(len(lengths)))) for unit in unit_B]
    runs = [unit for unit, _ in groupby(owners)]
    assert len(runs) == len(set(runs))


@given(lengths=LENGTHS, tokens=st.integers(1, 300))
def test_a_micro_batch_has_a_shape_that_its_units_may_have(lengths: list[list[int]], tokens: int) -> None:
    """And no other unit decides which: it follows from the unit's own longest example."""
    site = _site(lengths, tokens)
    for batch, unit_B in site.micro_batches(list(range(len(lengths)))):
        rows, padded = batch["input_ids"].shape
        for unit in unit_B:
            assert padded == site.shapes.padded(max(lengths[unit]))
            assert rows in site.shapes.by_length[padded]
        assert rows == 1 or rows * padded <= tokens


def test_rows_that_are_missing_are_filled_up() -> None:
    [(batch, unit_B)] = _site([[9]] * 5, 128).micro_batches(list(range(5)))
    assert unit_B == [0, 1, 2, 3, 4]
    assert batch["input_ids"].shape == (8, 16)
    assert batch["attention_mask"].sum(dim=1).tolist() == [9] * 8


def test_long_units_come_first() -> None:
    site = _site([[9], [2], [25, 1], [3]], 1)
    owners = [unit for _, unit_B in site.micro_batches([0, 1, 2, 3]) for unit in unit_B]
    assert owners == [2, 2, 0, 1, 3]  # 2, 3 and 9 tokens are padded to 16, and keep their order


def test_an_empty_draw_and_an_empty_unit_give_no_micro_batches() -> None:
    site = _site([[], [4]], 64)
    assert list(site.micro_batches([])) == []
    assert list(site.micro_batches([0])) == []


@pytest.mark.parametrize("tokens", [1, pytest.param(10_000, marks=pytest.mark.waits)])
def test_an_example_without_tokens_contributes_zero(model: WarmModel, tokens: int) -> None:
    """A tokenizer without special tokens gives none for some texts."""
    plan, table = make_plan(sampling_probability=1.0), make_table(model, make_records(3))
    hostile = UnitTable([[{"input_ids": [], "label": 0}], *table.units])
    actual, expected = (train_sum(plan, model, batched(model, t, tokens), TestCoins(0)) for t in (hostile, table))
    np.testing.assert_allclose(actual, expected, atol=1e-5)
