from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import guarantees

from confide.common.privacy.unit_means import unit_means


def test_a_unit_s_examples_are_added_in_an_order_of_their_own() -> None:
    guarantees.check_the_order_of_a_unit_s_examples_is_its_own()


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8), cuts=st.sets(st.integers(1, 39)))
def test_all_examples_of_a_unit_are_averaged_however_the_batches_are_cut(sizes: list[int], cuts: set[int]) -> None:
    owners = [unit for unit, size in enumerate(sizes) for _ in range(size)]
    examples = torch.arange(3.0 * len(owners)).reshape(-1, 3)
    edges = [0, *sorted(cut for cut in cuts if cut < len(owners)), len(owners)]
    means = torch.cat(list(unit_means((examples[a:b].clone(), owners[a:b]) for a, b in pairwise(edges))))
    expected = [examples[[owner == unit for owner in owners]].mean(dim=0) for unit in range(len(sizes))]
    torch.testing.assert_close(means, torch.stack(expected))


def test_no_parts_give_no_units() -> None:
    assert list(unit_means([])) == []


def test_a_unit_that_comes_back_is_refused_since_it_would_be_clipped_twice() -> None:
    rows = torch.ones(2, 3)
    for parts in ([(rows, [0, 1]), (rows, [2, 0])], [(rows, [0, 0]), (rows, [1, 1]), (rows, [0, 0])]):
        with pytest.raises(RuntimeError, match="side by side"):
            list(unit_means(parts))


def test_a_unit_that_is_not_finite_leaves_its_neighbours_alone() -> None:
    rows = torch.tensor([[1.0], [float("nan")], [3.0], [5.0]])
    means = torch.cat(list(unit_means([(rows[:2], [0, 1]), (rows[2:], [1, 2])]))).ravel().numpy()
    np.testing.assert_array_equal(means, [1.0, np.nan, 5.0])
