"""The audit of a locked run with canaries in gradient space: lower bounds beside the epsilon that is stated."""

import time
from dataclasses import dataclass

import numpy as np

from confide.client.training.batches import BatchedUnits
from confide.common.config.run import RunConfig, make_plan
from confide.common.errors import InputError
from confide.common.privacy import accounting
from confide.common.privacy.coins import Coins
from confide.common.privacy.plan import NoPrivacy, PrivacyPlan
from confide.simulations.audit.bounds import Tally, most_hits, of_trials, one_run
from confide.simulations.audit.canaries import Canaries
from confide.simulations.audit.observers import (
    Inside,
    Scores,
    accused_above,
    learned,
    likelihood_ratio,
    one_mask_ratio,
    spread,
    surest,
)
from confide.simulations.audit.rounds import Colluding, MakeCoins, Seen, local_round, lone_share, summed_round, views_of
from confide.simulations.audit.verdicts import ONE_RUN, TRIALS, Attack, Audit, Effort, View

MOST_STEPS = 200  # of a crowd, 90 s; what is seen of them is stated for all steps
SURE_SHARE = 0.05  # of the canaries are guessed for the bound of one run: near the best at epsilons from 2 to 8
_OVERSTATED = 4  # an institution may declare more units than it has; a draw that follows the data then shows
_LONE_COORDINATES = 512  # so that their noise shows its size within 3 %
_ONE_MASK_THRESHOLD = 1.0  # measured for q from 0.05 to 0.3 and 2 to 40 rounds: near the best in each
DEFAULT = Effort()


def audit_mechanism(
    run: RunConfig,
    effort: Effort = DEFAULT,
    make_coins: MakeCoins = Coins.fresh,
    chance: np.random.Generator | None = None,
) -> Audit:
    """Attack the step of a locked run with canaries, through the code that clients run.

    Args:
        run: locked; its base model, data and task play no part.
        effort: how many canaries and runs.
        make_coins: the coins of a round at an institution.
        chance: decides who is in; None: the operating system's seed.

    Raises:
        InputError: the run has no privacy, so nothing is stated.
    """
    began = time.monotonic()
    plan = make_plan(run, _OVERSTATED * effort.canaries)
    if isinstance(plan, NoPrivacy):
        raise InputError('privacy.unit = "none": a run without privacy states no epsilon, so there is none to audit')
    chance = chance or np.random.default_rng()
    local = run.local.model_copy(update={"steps": min(run.local.steps, MOST_STEPS)})
    run = run.model_copy(update={"local": local})
    work = _Work(run, plan, effort, make_coins, chance)
    num_rounds = max(1, min(run.federation.num_rounds, MOST_STEPS // run.local.steps))
    views = _observers(plan)
    risk = (1 - effort.confidence) / len(views)
    inside, seen = work.crowd(num_rounds, views)
    found = [
        View(_who(plan, view), accounting.epsilon(view.plan), _crowd_attacks(run, view.plan, inside, one, risk))
        for view, one in zip(views, seen, strict=True)
    ]
    found[-1].attacks.extend(work.lone_attacks(views[-1].plan, risk))
    seconds = round(time.monotonic() - began, 1)
    return Audit(effort, num_rounds, num_rounds * run.local.steps, seconds, found)


def _observers(plan: PrivacyPlan) -> list[Colluding]:
    return [Colluding(0, plan)] if plan.sharing is None else views_of(plan)


def _who(plan: PrivacyPlan, view: Colluding) -> str:
    if plan.sharing is None:
        return "the server, which sees every update of an institution"
    if view.num_colluding == plan.sharing.min_members - 1:
        return "the server with all other members, or with a broken sum: it sees one institution's share"
    return f"the server with {view.num_colluding} colluding members, which sees the sum of the others"


def _crowd_attacks(run: RunConfig, plan: PrivacyPlan, inside: Inside, seen_RM: Seen, risk: float) -> list[Attack]:
    """Return the attacks on a crowd. The first, which has the most power against right code, takes half of the risk."""
    steps, local = run.local.steps * len(seen_RM), run.local.steps
    ratio, rest = likelihood_ratio(seen_RM, plan, local), 1 - risk / 2 / 6
    guesses, right = surest(ratio, inside, SURE_SHARE)
    one = one_run(len(inside), guesses, right, plan.target_delta, rest)
    tally = accused_above(ratio, inside, 0.0)
    others = {"likelihood of all rounds, threshold learnt": ratio, "changes between rounds": spread(seen_RM)}
    served = accused_above(one_mask_ratio(seen_RM, plan, local), inside, _ONE_MASK_THRESHOLD)
    of_rounds = [_by_trials("likelihood if one draw serves a round", served, plan, steps, rest)] if local > 1 else []
    return [
        _by_trials("likelihood of all rounds", tally, plan, steps, 1 - risk / 2),
        Attack("likelihood of all rounds, surest guesses", ONE_RUN, one, right / guesses, None),
        *(_learned(name, scores, inside, plan, steps, rest) for name, scores in others.items()),
        *of_rounds,
    ]


def _learned(name: str, scores: Scores, inside: Inside, plan: PrivacyPlan, steps: int, sure: float) -> Attack:
    tally = learned(scores, inside, lambda alarms: most_hits(plan, steps, alarms))
    return _by_trials(name, tally, plan, steps, sure)


def _by_trials(name: str, tally: Tally, plan: PrivacyPlan, steps: int, sure: float) -> Attack:
    bound = of_trials(tally, plan, steps, sure)
    return Attack(name, TRIALS, bound, tally.hits / max(1, tally.members), tally.alarms / max(1, tally.outsiders))


@dataclass(frozen=True)
class _Work:
    run: RunConfig
    plan: PrivacyPlan
    effort: Effort
    make_coins: MakeCoins
    chance: np.random.Generator

    def crowd(self, num_rounds: int, views: list[Colluding]) -> tuple[Inside, list[Seen]]:
        """Run all canaries together, each in with probability 1/2. Return who was, and (rounds, canaries) by view."""
        canaries = Canaries.made(self.effort.canaries, self.plan.head_weight)
        inside = self.chance.random(self.effort.canaries) < 0.5
        units = canaries.units([int(number) for number in inside.nonzero()[0]])
        rounds = [self._round(canaries, units, views) for _ in range(num_rounds)]
        joined = [np.stack([seen[view].sum(axis=0) / np.sqrt(2) for seen in rounds]) for view in range(len(views))]
        return inside, joined

    def lone_attacks(self, plan: PrivacyPlan, risk: float) -> list[Attack]:
        """Run one round with at most one canary many times, beside one bystander whose gradient is zero.

        In a crowd a batch is never empty, and one unit more or less changes no size. Here it does.
        """
        canaries = Canaries.made(_LONE_COORDINATES, self.plan.head_weight)
        inside = self.chance.random(self.effort.lone) < 0.5
        zeros, loudness = np.zeros(len(inside)), np.zeros(len(inside))
        for trial, present in enumerate(inside):
            units = canaries.units([0, canaries.bystander] if present else [canaries.bystander])
            seen = self._alone(canaries, units)
            zeros[trial], loudness[trial] = (seen == 0).sum(), seen[:, 1:].std()
        steps = self.run.local.steps
        return [
            _learned("exact zeros around one canary", zeros, inside, plan, steps, 1 - risk / 2 / 6),
            _learned("loudness around one canary", loudness, inside, plan, steps, 1 - risk / 2 / 6),
        ]

    def _round(self, canaries: Canaries, units: BatchedUnits, views: list[Colluding]) -> list[Seen]:
        if self.plan.sharing is None:
            return [local_round(self.run, self.plan, canaries, units, self.make_coins)]
        return summed_round(self.plan, canaries, units, self.make_coins, views)

    def _alone(self, canaries: Canaries, units: BatchedUnits) -> Seen:
        """Return one institution's update, or its share of a sum."""
        if self.plan.sharing is None:
            return local_round(self.run, self.plan, canaries, units, self.make_coins)
        return lone_share(self.plan, canaries, units, self.make_coins)
