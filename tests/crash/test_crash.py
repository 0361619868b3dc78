"""The crash test, short: `make crash-test` kills a thousand clients."""

import pytest
from crash import fake, real, summing
from crash.world import kill_clients


@pytest.mark.waits
def test_killed_clients_lose_nothing_and_get_nothing_back() -> None:
    counts = kill_clients(fake.KIND, 40, 0)
    assert counts["kills"] >= 40
    assert min(counts["new answers"], counts["answers sent again"], counts["rows: policy"]) > 5


def test_killed_clients_of_secure_sums_let_a_share_leave_once() -> None:
    counts = kill_clients(summing.KIND, 40, 0)
    assert counts["kills"] >= 40
    assert min(counts["new masked shares"], counts["masked shares sent again"], counts["rows: policy"]) > 5


@pytest.mark.waits
def test_killed_clients_that_train_lose_nothing_and_get_nothing_back() -> None:
    counts = kill_clients(real.KIND, 2, 3)
    assert counts["kills"] >= 2
    assert counts["new answers"] > 0
