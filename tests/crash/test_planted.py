"""The crash test finds every bug of `crash.planted`, each within a few kills."""

import pytest
from crash import fake
from crash.laws import Violation
from crash.planted import NAMES
from crash.world import kill_clients

FOUND = {
    "refund": "reserved|above",
    "seal-before-write": "lost|gone",
    "reuse-coins": "same noise",
    "send-orphan": "without a SEAL",
    "third-attempt": "more than one retry",
    "forget-the-cap": "above",
}


@pytest.mark.parametrize("bug", NAMES)
def test_a_planted_bug_is_found(bug: str) -> None:
    with pytest.raises(Violation, match=FOUND[bug]):
        kill_clients(fake.KIND, 80, 0, bug)
