"""The crash test finds every bug of `crash.planted` and `crash.planted_sums`, each within a few kills."""

from dataclasses import replace

import pytest
from crash import fake, summing
from crash.laws import Violation
from crash.planted import NAMES
from crash.planted_sums import CHANGES
from crash.world import kill_clients

from confide.common import failpoints

FOUND = {
    "refund": "reserved|above",
    "seal-before-write": "lost|gone",
    "reuse-coins": "same noise",
    "send-orphan": "without a SEAL",
    "third-attempt": "more than one retry",
    "forget-the-cap": "above",
}
FOUND_IN_SUMS = {
    "release-after-the-write": "without a SEAL|which the ledger does not know",
    "forget-before-the-write": "may still leave are lost",
    "keep-what-was-sent": "still held",
    "keep-what-has-no-seal": "still held",
    "keep-what-is-passed": "still held",
    "mask-anew": "lost or changed",
    "two-statements": "a round's second release",
    "one-account": "if broken",
}


@pytest.mark.parametrize("bug", NAMES)
def test_a_planted_bug_is_found(bug: str) -> None:
    with pytest.raises(Violation, match=FOUND[bug]):
        kill_clients(fake.KIND, 80, 0, bug)


@pytest.mark.waits
@pytest.mark.parametrize("bug", CHANGES)
def test_a_planted_bug_of_sums_is_found(bug: str) -> None:
    kind = replace(summing.KIND, places=(*failpoints.OF_A_SUM, "outbox-written"))
    with pytest.raises(Violation, match=FOUND_IN_SUMS[bug]):
        kill_clients(kind, 120, 0, bug)
