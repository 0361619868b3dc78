"""Both epsilons of a run over its rounds: of the institution that was asked most."""

import math
from dataclasses import dataclass

from confide.common.config.run import RunConfig, make_plan
from confide.common.privacy.accounting import epsilon
from confide.common.privacy.plan import PrivacyPlan
from confide.common.privacy.secure.conditions import epsilon_or_infinite
from confide.server.rounds.run_context import Event

_MOST = 8  # rounds: each costs an accountant a tenth of a second


@dataclass(frozen=True)
class Spending:
    """The spend of the institution that was asked most.

    Attributes:
        rounds: numbers of some rounds, the last included.
        epsilon: after each of them.
        whole: of all rounds.
        if_broken: after the last, if shared noise is broken; None where none is shared.
        whole_if_broken: the same of all rounds; infinite where no bound is given.
    """

    rounds: list[int]
    epsilon: list[float]
    whole: float
    if_broken: float | None
    whole_if_broken: float | None


def spending(run: RunConfig, rounds: dict[int, Event]) -> Spending | None:
    """Return the spend of a run after some of its rounds; None for a run without privacy."""
    plan = make_plan(run, run.local.nominal_units)
    if not isinstance(plan, PrivacyPlan):
        return None
    numbers = sorted(rounds)
    stride = max(1, math.ceil(len(numbers) / (_MOST - 1)))
    # Whole strides of the numbers: the points stay as rounds are added, and an accountant keeps what it has counted.
    chosen = [number for number in numbers[:-1] if number % stride == 0 or number == numbers[0]] + numbers[-1:]
    steps = [(rounds[number]["num_steps"], rounds[number]["num_releases"]) for number in chosen]
    shares = plan.sharing is not None
    return Spending(
        rounds=chosen,
        epsilon=[epsilon(plan, *count) for count in steps],
        whole=epsilon(plan),
        if_broken=epsilon(plan.if_broken, *steps[-1]) if shares and steps else None,
        whole_if_broken=epsilon_or_infinite(plan.if_broken) if shares else None,
    )
