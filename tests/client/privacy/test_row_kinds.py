"""The effect of each kind of row on an account, and the text of a row that is hashed."""

import pytest

from confide.client.privacy.account import Account
from confide.client.privacy.row_kinds import add_row, canonical, hash_row
from confide.common.privacy.filter import Cap


def test_the_first_row_sets_the_cap_and_a_policy_row_moves_it() -> None:
    account = Account()
    for number, bound in enumerate((3.0, 2.0), start=1):
        kind = "dataset" if number == 1 else "policy"
        add_row(account, {"kind": kind, "number": number, "max_epsilon": bound, "max_delta": 1e-5}, f"{number:064}")
        assert account.cap == Cap(bound, 1e-5)
        assert (account.number, account.head) == (number, f"{number:064}")


def test_an_approval_is_of_one_study_and_one_run() -> None:
    account = Account()
    add_row(account, {"kind": "approve", "number": 1, "study": "one", "run_sha256": "a" * 64}, "1" * 64)
    assert account.approved == {("one", "a" * 64)}


def test_the_hash_is_of_one_text_whatever_the_order_of_the_values() -> None:
    """Other programs recompute it: sorted names, no blanks, ASCII only, and no number that JSON lacks."""
    assert canonical({"study": "ä", "number": 1}) == '{"number":1,"study":"\\u00e4"}'
    assert hash_row({"a": 1, "b": 2}) == hash_row({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        canonical({"max_epsilon": float("inf")})
