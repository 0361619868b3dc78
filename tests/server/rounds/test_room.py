"""The room of a secure sum's grid: too large an adapter, or too many units, is told before anything is charged."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from support.planting import plant

from confide.common.config.run import RunConfig
from confide.common.errors import PolicyError
from confide.common.privacy.secure import sharing
from confide.common.protocol.answers import Acceptance
from confide.common.protocol.signatures import Identity
from confide.server.home.registry import Member
from confide.server.rounds import loop as loop_module
from confide.server.rounds import newcomers as newcomers_module
from confide.server.rounds import offer as offer_module
from confide.server.rounds import participation
from confide.server.rounds.loop import run_rounds
from confide.server.rounds.newcomers import Newcomers
from confide.server.rounds.offer import Offered, offer_run
from confide.server.rounds.resume import Resumed
from confide.server.rounds.roster import Institution
from confide.server.rounds.round_asks import make_ask
from confide.server.rounds.run_context import Event, Job, RunState
from confide.simulations.engines.grid import InProcessGrid, SkippingClock

NAMES = ("anne", "jude", "luke", "mary")
ROOM = 4096  # units of all together: half of them are drawn, and 2048 fit into a sum on the finest grid


def _key(name: str) -> str:
    return Identity(name.encode().ljust(32)).public_hex()


class World:
    """A server that offers a secure sum to institutions, each with the size that it declares."""

    def __init__(self, make_run: Callable[..., RunConfig], **units: int) -> None:
        self.run = make_run(
            study={"institutions": list(NAMES), "keys": {name: _key(name) for name in NAMES}},
            federation={"min_clients": 3, "aggregation": "secure-sum", "weights": "declared"},
            local={"nominal_units": 1000, "sampling_probability": 0.5},
            privacy={"noise_multiplier": 0.6, "max_colluding": 1, "grid_bits": 19, "share_variance": 2**36},
            model={"sha256": "b" * 64},
        )
        self.units, self.events, self.asked = units, list[Event](), list[str]()
        members = {1000 + number: Member(name, "", _key(name), "") for number, name in enumerate(units)}
        self.clock = SkippingClock()
        self.grid = InProcessGrid(None, len(units), self.clock, self._answer)  # type: ignore[arg-type]
        self.job = Job(
            self.run,
            "ab" * 16,
            {"head.bias": np.zeros(2, np.float32)},
            None,
            self.events.append,
            lambda *rest: None,
            self.clock,
            len(units),
            members=members,
            members_now=lambda: members,
        )

    def _answer(self, message: Message, honest: object) -> tuple[float, Message]:
        self.asked.append(message.metadata.message_type)
        name = list(self.units)[message.metadata.dst_node_id - 1000]
        return 0.0, Message(Acceptance(name, self.units[name], _key(name)).content(), reply_to=message)

    def institutions(self, *names: str) -> dict[int, Institution]:
        return {
            1000 + number: Institution(name, units, _key(name))
            for number, (name, units) in enumerate(self.units.items())
            if name in names
        }


def test_too_many_units_are_told_before_the_first_round(make_run: Callable[..., RunConfig]) -> None:
    world = World(make_run, anne=1000, jude=1000, luke=ROOM)
    with pytest.raises(PolicyError, match="a step draws 3,048 units, a sum takes 2,048") as error:
        run_rounds(RunState(world.job), world.grid)
    assert str(error.value).endswith("; luke declares the most, declared_units = 4096")
    assert set(world.asked) == {"query.offer"}


def _offered(world: World, before: dict[str, Institution] | None = None) -> Offered:
    job = replace(world.job, resumed=Resumed(institutions=before or {}))
    offered = offer_run(job, world.grid, make_ask(job, 0))
    assert offered is not None
    return offered


def _names(offered: Offered) -> set[str]:
    return {item.name for item in offered.taking_part.values()}


def test_one_large_claim_does_not_end_the_run_of_all(make_run: Callable[..., RunConfig]) -> None:
    offered = _offered(World(make_run, anne=1000, jude=ROOM, luke=1000, mary=1001))
    assert _names(offered) == {"anne", "luke", "mary"}
    assert offered.others["jude"].startswith("declared_units = 4096 is too much for this run's secure sum: of the")
    assert offered.event()["others"] == offered.others


def test_who_fits_is_not_left_out(make_run: Callable[..., RunConfig]) -> None:
    offered = _offered(World(make_run, anne=1000, jude=1096, luke=1000, mary=1000))
    assert (_names(offered), offered.others) == ({"anne", "jude", "luke", "mary"}, {})


def test_too_large_an_adapter_is_told_before_the_offer(
    make_run: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each institution would allot steps, and decline the first round without a word."""
    monkeypatch.setattr(sharing, "MAX_COORDINATES", 1)
    world = World(make_run, anne=1000, jude=1000, luke=1000)
    with pytest.raises(PolicyError, match="the adapter has 2 numbers, a secure sum at most 1; train fewer layers"):
        run_rounds(RunState(world.job), world.grid)
    assert world.asked == []


def _join_later(make_run: Callable[..., RunConfig], units: int) -> tuple[list[str], Event]:
    """Three take part, and a fourth accepts while the run goes on."""
    world = World(make_run, anne=1000, jude=1000, luke=1000, mary=units)
    there = world.institutions("anne", "jude", "luke")
    newcomers = Newcomers(world.job, Offered(3, there, {}))
    newcomers.offer(world.grid, make_ask(world.job, 0), there)
    joined = newcomers.take(world.grid, 2, there.values())
    [event] = world.events
    return [item.name for item in joined.values()], event


def test_who_joins_later_takes_part_if_the_sum_still_fits(make_run: Callable[..., RunConfig]) -> None:
    joined, event = _join_later(make_run, ROOM - 3000)
    assert joined == ["mary"]
    assert event["declared_units"] == {"mary": ROOM - 3000}


def test_who_joins_later_with_too_many_units_is_refused_by_one_line(make_run: Callable[..., RunConfig]) -> None:
    joined, event = _join_later(make_run, ROOM - 2998)
    assert joined == []
    assert event["declared_units"] == {}
    told = event["others"]["mary"]
    assert told.startswith("declared_units = 1098 is too much for this run's secure sum: of the sizes")
    assert "a step draws 2,049 units, a sum takes 2,048" in told


def _before(*names: str) -> dict[str, Institution]:
    """Institutions of a run that was interrupted in a round."""
    return {name: Institution(name, 1000, _key(name), asks=Counter({("update", 1): 1})) for name in names}


def test_a_run_that_goes_on_is_not_ended_by_who_is_new(make_run: Callable[..., RunConfig]) -> None:
    world = World(make_run, mary=ROOM - 2000, anne=1000, jude=1000, luke=1000)
    offered = _offered(world, _before("anne", "jude", "luke"))
    assert _names(offered) == {"anne", "jude", "luke"}
    assert "is too much for this run's secure sum" in offered.others["mary"]


def test_a_run_that_goes_on_is_not_ended_by_a_member_of_another_size(make_run: Callable[..., RunConfig]) -> None:
    """It took part with 1,000 units, and the sum then fitted."""
    world = World(make_run, anne=ROOM, jude=1000, luke=1000, mary=1000)
    offered = _offered(world, _before(*NAMES))
    assert _names(offered) == {"jude", "luke", "mary"}
    assert offered.others["anne"].startswith("declared_units = 4096 is too much for this run's secure sum")


def test_a_member_of_another_size_that_fits_takes_part(make_run: Callable[..., RunConfig]) -> None:
    offered = _offered(World(make_run, anne=1096, jude=1000, luke=1000, mary=1000), _before(*NAMES))
    assert (_names(offered), offered.others) == (set(NAMES), {})


def test_who_is_new_does_not_take_the_room_of_who_returns_late(make_run: Callable[..., RunConfig]) -> None:
    world = World(make_run, mary=1097, anne=1000, jude=1000)
    offered = _offered(world, _before("anne", "jude", "luke"))
    assert _names(offered) == {"anne", "jude"}
    assert "is too much for this run's secure sum" in offered.others["mary"]


def test_nor_does_it_in_mid_run(make_run: Callable[..., RunConfig]) -> None:
    world = World(make_run, anne=1000, jude=1000, luke=1000, mary=1097)
    state = RunState(replace(world.job, resumed=Resumed(institutions=_before("anne", "jude", "luke"))))
    state.continue_with(world.institutions("anne", "jude"))
    newcomers = Newcomers(state.job, Offered(2, state.institutions, {}))
    newcomers.offer(world.grid, make_ask(state.job, 0), world.institutions("anne", "jude", "luke"))
    loop_module._welcome(state, world.grid, newcomers, 2)
    assert [item.name for item in state.institutions.values()] == ["anne", "jude"]
    assert "is too much for this run's secure sum" in world.events[0]["others"]["mary"]


def test_a_run_that_was_refused_is_offered_as_at_first(make_run: Callable[..., RunConfig]) -> None:
    """Nothing was asked, so a large claim of then keeps no room."""
    before = {name: Institution(name, units) for name, units in {"anne": 1000, "jude": 1000, "luke": ROOM}.items()}
    offered = _offered(World(make_run, anne=1000, jude=1000, luke=ROOM, mary=1000), before)
    assert _names(offered) == {"anne", "jude", "mary"}


def test_who_comes_back_under_another_node_is_counted_once(make_run: Callable[..., RunConfig]) -> None:
    world = World(make_run, anne=1000, jude=1000, luke=1000)
    there = world.institutions("anne", "jude", "luke")
    again = {7: Institution("luke", ROOM - 2000, _key("luke"))}
    joined, refused = participation.with_room(again, there.values(), world.run, world.job.size)
    assert (joined, refused) == (again, {})


def test_without_shared_noise_all_have_room(make_run: Callable[..., RunConfig]) -> None:
    run = make_run(privacy={"noise_multiplier": 1.0})
    assert participation.room_problem(run, 10**9, 10**9) is None


BUGS: dict[str, tuple[str, str, Any]] = {
    "the newcomer's own units are left out": (
        "with_it = {**units, item.name: item.declared_units}",
        "with_it = {**units}",
        test_who_joins_later_with_too_many_units_is_refused_by_one_line,
    ),
    "a name counts twice": (
        "units, refused = {item.name: item.declared_units for item in there}",
        "units, refused = {f'{item.name}.': item.declared_units for item in there}",
        test_who_comes_back_under_another_node_is_counted_once,
    ),
    "who is known may declare any size": (
        "item.declared_units == before.declared_units",
        "True",
        test_a_run_that_goes_on_is_not_ended_by_a_member_of_another_size,
    ),
    "who has not returned has no room": (
        "with_room(others, before.values(), run, size)",
        "with_room(others, known.values(), run, size)",
        test_who_is_new_does_not_take_the_room_of_who_returns_late,
    ),
    "nobody is left out at first": (
        "if len(staying) <= run.federation.min_clients:",
        "if True:",
        test_one_large_claim_does_not_end_the_run_of_all,
    ),
    "the smallest is left out": (
        "largest = max(staying,",
        "largest = min(staying,",
        test_one_large_claim_does_not_end_the_run_of_all,
    ),
    "more are left out than a quorum allows": (
        "if len(staying) <= run.federation.min_clients:",
        "if not staying:",
        test_too_many_units_are_told_before_the_first_round,
    ),
    "the smallest is named": (
        "largest = max(institutions,",
        "largest = min(institutions,",
        test_too_many_units_are_told_before_the_first_round,
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(
    make_run: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    right, wrong, test = BUGS[name]
    check = partial(test, make_run)
    check()
    plant(monkeypatch, participation, right, wrong)
    for user in (newcomers_module, offer_module, loop_module):
        for own in [own for own in vars(user) if own in ("with_room", "at_first", "after_restart", "require_room")]:
            monkeypatch.setattr(user, own, getattr(participation, own))
    with pytest.raises((AssertionError, PolicyError)):
        check()
