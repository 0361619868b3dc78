"""Members of a sum that a restarted server shows again."""

from types import SimpleNamespace
from typing import Any

from confide.server.home.registry import Member
from confide.server.rounds import secure_round
from confide.server.rounds.resume import Resumed
from confide.server.rounds.roster import Institution

NAMES = ("mary", "jude", "luke", "anne")


def _state(back: dict[int, str], approved: dict[int, str]) -> Any:
    """A run after a restart: who has accepted again, and who is approved, by node."""
    known = {name: Institution(name, 20, "old key") for name in NAMES}
    members = {node: Member(name, "node key", f"key of {name}", "today") for node, name in approved.items()}
    job = SimpleNamespace(resumed=Resumed(institutions=known), members_now=lambda: members)
    return SimpleNamespace(job=job, institutions={node: Institution(name, 20, "new") for node, name in back.items()})


def test_a_member_that_has_not_come_back_yet_is_asked_too() -> None:
    """It holds its share: without it the sum of all others would be void, and it would be benched."""
    state = _state({1: "mary", 2: "jude"}, {1: "mary", 2: "jude", 3: "luke", 4: "anne"})
    found = secure_round._members(state, {"mary", "jude", "luke"})
    assert {node: item.name for node, item in found.items()} == {1: "mary", 2: "jude", 3: "luke"}
    assert [item.update_key for item in found.values()] == ["new", "new", "key of luke"]


def test_a_member_that_is_not_approved_any_more_is_not_asked() -> None:
    found = secure_round._members(_state({1: "mary"}, {1: "mary"}), {"mary", "luke"})
    assert [item.name for item in found.values()] == ["mary"]


def test_a_member_that_came_back_under_another_node_is_asked_once() -> None:
    state = _state({9: "mary"}, {9: "mary", 1: "mary"})
    assert list(secure_round._members(state, {"mary"})) == [9]
