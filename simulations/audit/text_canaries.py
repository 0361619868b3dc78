"""Canaries in text: made-up records among those of a run, half of them in by a coin, and guesses who was in.

The run is carried out once, through all that `confide simulate` does. Where canaries in gradient space tell the most
that anybody could find, these tell what is found of records that could be real.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from confide.client.data.units import split_records
from confide.common.config.run import RunConfig, make_plan
from confide.common.data.batches import length
from confide.common.data.records import Record
from confide.common.errors import InputError
from confide.common.model.warm_model import warm_model
from confide.common.privacy import accounting
from confide.common.privacy.plan import PrivacyPlan
from confide.simulations.audit.bounds import one_run
from confide.simulations.audit.observers import Inside, Scores, surest
from confide.simulations.audit.verdicts import ONE_RUN, Attack, View
from confide.simulations.data.institutions import load_institutions
from confide.simulations.sites.simulated_sites import simulated_secret
from confide.simulations.studies.reruns import Reran, Unit, rerun, unit_losses

WORDS = 12
_GUESSED = (0.1, 0.5)  # of the canaries, the surest first
_TRIES = 100  # of a made-up record for which nothing can be learnt, or which its institution would hold out


@dataclass(frozen=True)
class TextCanary:
    """A made-up record at an institution, and the examples that a model reads of it."""

    institution: str
    record: Record
    examples: Unit


@dataclass(frozen=True)
class TextAudit:
    """The canaries of one run, and the attacks on them beside what is stated."""

    canaries: int
    members: int
    confidence: float
    seconds: float
    view: View
    most_provable: float

    def as_json(self) -> dict[str, Any]:
        """Return all of it."""
        size = {"canaries": self.canaries, "members": self.members, "most_provable": self.most_provable}
        return {**size, "confidence": self.confidence, "seconds": self.seconds, **self.view.as_json()}


def audit_texts(
    run: RunConfig, count: int, confidence: float = 0.95, chance: np.random.Generator | None = None
) -> TextAudit:
    """Carry a locked run out once with made-up records among its own, and guess which of them it was trained on.

    Args:
        run: locked, with the data of `[simulation]`.
        count: made-up records; each is in with probability 1/2.
        confidence: with which all bounds hold together.
        chance: makes up the records and decides who is in; None: the operating system's seed.

    Raises:
        InputError: the run has no privacy or no data, or no made-up record can be learnt from.
    """
    began, chance = time.monotonic(), chance or np.random.default_rng()
    plan = make_plan(run, run.local.nominal_units)
    if not isinstance(plan, PrivacyPlan):
        raise InputError('privacy.unit = "none": a run without privacy states no epsilon, so there is none to audit')
    private = load_institutions(run).private
    canaries = make_canaries(run, private, count, chance)
    inside = chance.random(count) < 0.5
    ran = rerun(run, with_canaries(private, canaries, inside))
    attacks = attacks_on(run, plan, canaries, inside, ran, 1 - confidence)
    view = View("whoever sees the adapter after each round", accounting.epsilon(plan), attacks)
    num_right = max(1, math.floor(count * max(_GUESSED) / 2)) * 2
    most = one_run(count, num_right, num_right, plan.target_delta, 1 - (1 - confidence) / 2 / len(_GUESSED))
    return TextAudit(count, int(inside.sum()), confidence, round(time.monotonic() - began, 1), view, most)


def make_canaries(
    run: RunConfig, private: dict[str, list[Record]], count: int, chance: np.random.Generator
) -> list[TextCanary]:
    """Return made-up records for the institutions in turn: random words, and an answer by chance."""
    model, names, made = warm_model(run, run.speed), list(private), list[TextCanary]()
    share = run.simulation.validation_fraction if run.simulation else 0.0
    for _ in range(_TRIES * count):
        name = names[len(made) % len(names)]
        record = run.task.made_up(int(chance.integers(2**40)), int(chance.integers(2**20)), WORDS)
        if "group" in private[name][0]:
            record["group"] = f"canary {chance.integers(2**40)}"
        examples = [one for one in run.task.examples(record, model.tokenizer) if length(one)]
        if examples and split_records([record], simulated_secret(run, name), share)[0]:
            made.append(TextCanary(name, record, examples))
        if len(made) == count:
            return made
    raise InputError(
        f"{len(made)} of {count} made-up texts can be learnt from: the tokenizer leaves nothing of the others, or the "
        "institutions hold them out; use --texts 0"
    )


def with_canaries(
    private: dict[str, list[Record]], canaries: list[TextCanary], inside: Inside
) -> dict[str, list[Record]]:
    """Return the records of all institutions, with those canaries that are in."""
    joined = {name: list(records) for name, records in private.items()}
    for canary, is_in in zip(canaries, inside, strict=True):
        joined[canary.institution] += [canary.record] * bool(is_in)
    return joined


def attacks_on(
    run: RunConfig, plan: PrivacyPlan, canaries: list[TextCanary], inside: Inside, ran: Reran, risk: float
) -> list[Attack]:
    """Return the bounds of both attacks, which hold together but for the risk."""
    model, units = warm_model(run, run.speed), [canary.examples for canary in canaries]
    before = unit_losses(model, units, ran.start)
    later = np.mean([unit_losses(model, units, state.adapter) for state in ran.rounds], axis=0)
    scores: dict[str, Scores] = {
        "loss of the finished adapter, against the start": before - unit_losses(model, units, ran.finished),
        "loss after each round, against the start": before - later,
    }
    own = risk / len(scores) / len(_GUESSED)
    return [
        _best(name, [_bound(name, each, inside, share, plan.target_delta, 1 - own) for share in _GUESSED])
        for name, each in scores.items()
    ]


def _best(name: str, attacks: list[Attack]) -> Attack:
    return max(attacks, key=lambda attack: (attack.bound, attack.hits))


def _bound(name: str, scores: Scores, inside: Inside, share: float, delta: float, confidence: float) -> Attack:
    guesses, right = surest(scores, inside, share)
    return Attack(name, ONE_RUN, one_run(len(inside), guesses, right, delta, confidence), right / guesses, None)
