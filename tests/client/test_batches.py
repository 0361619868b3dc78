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

from confide.client.batches import BatchedUnits
from confide.client.units import UnitTable
from confide.common.warm_model import WarmModel

LENGTHS = st.lists(st.lists(st.integers(1, 30), max_size=4), max_size=8)


def _units(lengths: list[list[int]]) -> UnitTable:
    """Units of examples whose tokens name them: unit u, example e has tokens 10 * u + e + 1."""

    def example(u: int, e: int, n: int) -> dict[str, Any]:
        return {"input_ids": [10 * u + e + 1] * n, "label": e}

    return UnitTable([[example(u, e, n) for e, n in enumerate(unit)] for u, unit in enumerate(lengths)])


@given(lengths=LENGTHS, tokens=st.integers(1, 80))
def test_every_example_of_every_drawn_unit_comes_once(lengths: list[list[int]], tokens: int) -> None:
    site = BatchedUnits(_units(lengths), 0, tokens, 10_000, torch.device("cpu"))
    drawn = list(range(0, len(lengths), 2))
    seen = []
    for batch, unit_B in site.micro_batches(drawn):
        for ids, mask, unit in zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), unit_B, strict=True):
            example = {"input_ids": [i for i, m in zip(ids, mask, strict=True) if m]}
            assert ids == example["input_ids"] + [0] * (len(ids) - sum(mask))
            seen.append((unit, example["input_ids"]))
    expected = [(u, example["input_ids"]) for u in drawn for example in site.table.units[u]]
    assert sorted(seen) == sorted(expected)


@given(lengths=LENGTHS, tokens=st.integers(1, 80))
def test_the_examples_of_a_unit_stand_side_by_side(lengths: list[list[int]], tokens: int) -> None:
    site = BatchedUnits(_units(lengths), 0, tokens, 10_000, torch.device("cpu"))
    owners = [unit for _, unit_B in site.micro_batches(list(range(len(lengths)))) for unit in unit_B]
    runs = [unit for unit, _ in groupby(owners)]
    assert len(runs) == len(set(runs))


@given(lengths=LENGTHS, tokens=st.integers(1, 80))
def test_a_micro_batch_keeps_to_its_tokens(lengths: list[list[int]], tokens: int) -> None:
    site = BatchedUnits(_units(lengths), 0, tokens, 10_000, torch.device("cpu"))
    for batch, unit_B in site.micro_batches(list(range(len(lengths)))):
        assert len(unit_B) == 1 or batch["input_ids"].numel() <= tokens


def test_short_units_come_first() -> None:
    site = BatchedUnits(_units([[9], [2], [5, 1], [3]]), 0, 1, 10_000, torch.device("cpu"))
    owners = [unit for _, unit_B in site.micro_batches([0, 1, 2, 3]) for unit in unit_B]
    assert owners == [1, 2, 2, 3, 0]  # 2, 3 and 5 tokens are padded to 8, and keep their order


def test_an_empty_draw_and_an_empty_unit_give_no_micro_batches() -> None:
    site = BatchedUnits(_units([[], [4]]), 0, 64, 10_000, torch.device("cpu"))
    assert list(site.micro_batches([])) == []
    assert list(site.micro_batches([0])) == []


@pytest.mark.parametrize("tokens", [1, 10_000])
def test_an_example_without_tokens_contributes_zero(model: WarmModel, tokens: int) -> None:
    """A tokenizer without special tokens gives none for some texts."""
    plan, table = make_plan(sampling_probability=1.0), make_table(model, make_records(3))
    hostile = UnitTable([[{"input_ids": [], "label": 0}], *table.units])
    actual, expected = (train_sum(plan, model, batched(model, t, tokens), TestCoins(0)) for t in (hostile, table))
    np.testing.assert_allclose(actual, expected, atol=1e-5)
