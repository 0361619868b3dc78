"""Who is asked in a round: a public draw that anybody can repeat."""

from collections import Counter
from typing import Any

import pytest

from confide.common.config.sections import FederationSection
from confide.common.errors import InputError
from confide.server.rounds.participation import check_quorum, draw

NAMES = [f"site-{number}" for number in range(50)]


def _rounds(count: int, names: list[str] = NAMES, seed: int = 7, **federation: Any) -> list[set[str]]:
    settings = FederationSection(**{"participation": 0.2, **federation})
    return [draw(names, settings, seed, number) for number in range(1, count + 1)]


def test_a_round_asks_its_share_and_everybody_is_asked_over_time() -> None:
    rounds = _rounds(100)
    assert {len(asked) for asked in rounds} == {10}
    often = Counter(name for asked in rounds for name in asked)
    assert set(often) == set(NAMES)
    assert 4 <= min(often.values()) <= max(often.values()) <= 40, "20 on average, and nobody is a favourite"


def test_the_draw_is_of_the_seed_and_the_round_and_not_of_the_order() -> None:
    assert _rounds(20) == _rounds(20, names=NAMES[::-1])
    assert len({frozenset(asked) for asked in _rounds(20)}) == 20
    assert not any(one == other for one, other in zip(_rounds(20), _rounds(20, seed=8), strict=True))


def test_who_has_left_moves_nobody_but_the_next_in_the_line() -> None:
    """A run is resumed with somebody away: the others of the open round, who have trained, are asked again."""
    for before, after in zip(_rounds(50), _rounds(50, names=NAMES[1:]), strict=True):
        assert before - after <= {NAMES[0]}
        assert len(after) == 10


def test_the_default_asks_everybody() -> None:
    assert (
        _rounds(3, participation=1.0) == [set(NAMES)] * 3 == _rounds(3, participation=FederationSection().participation)
    )


@pytest.mark.parametrize(("share", "min_clients", "asked"), [(0.01, 1, 1), (0.04, 1, 2), (0.05, 7, 7), (0.01, 99, 50)])
def test_never_fewer_than_the_quorum_or_one_are_asked(share: float, min_clients: int, asked: int) -> None:
    """Fewer accepted than were hoped for: the quorum can still be met."""
    assert {len(names) for names in _rounds(5, participation=share, min_clients=min_clients)} == {asked}


@pytest.mark.parametrize(
    ("settings", "count", "said"),
    [
        ({"min_clients": 4}, 3, ["federation.min_clients = 4", "3 institutions"]),
        (
            {"min_clients": 3, "participation": 0.1},
            20,
            ["federation.participation = 0.1 of 20", "asks 2", "federation.min_clients = 3"],
        ),
    ],
)
def test_settings_that_never_reach_a_quorum_are_refused(settings: dict[str, Any], count: int, said: list[str]) -> None:
    with pytest.raises(InputError) as error:
        check_quorum(FederationSection(**settings), count)
    assert all(words in str(error.value) for words in said)


def test_settings_that_reach_it_are_not() -> None:
    check_quorum(FederationSection(min_clients=3), 3)
    check_quorum(FederationSection(min_clients=3, participation=0.1), 30)
