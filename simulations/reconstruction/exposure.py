"""Exposure of secrets that are in the training texts (Carlini and others, arXiv 1802.08232, "The Secret Sharer").

Made-up identity numbers are put into units of a made-up institution, which trains by the run's own simulation. The
exposure of a secret is what the finished adapter gives away of it, in bits: log2 of the number of candidates less log2
of its rank among them, by the loss. Nobody's secret is as good as random: its exposure is log2(e) = 1.44 on average.
"""

import math
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.common.config.run import RunConfig
from confide.common.config.sections import EvaluationSection, ReleaseSection
from confide.common.model.adapter import set_state
from confide.common.model.evaluation import predict, write
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.tasks.causal_lm import CausalLM
from confide.common.tensors import State
from confide.simulations.reconstruction.inversion import PLAIN, lone_update
from confide.simulations.studies.baselines import with_local_noise, without_privacy
from confide.simulations.studies.reruns import rerun

COPIES = (1, 4, 0)  # units that hold a secret; those in none show what chance gives
CANDIDATES = 128  # numbers, the secret among them
_NAMES = ("ANNA", "BRUNO", "CLARA", "DAVID", "EMMA", "FELIX")
_UNITS = 100
_WORDS = 6  # of a unit without a secret
_TOKENS = 64  # the most of a text; a run's own texts may be longer, and cost time only
_SECONDS = 120.0  # of one training, by the time of one text; then fewer rounds are trained


@dataclass(frozen=True)
class Secret:
    """A made-up person's number, and in how many units it is."""

    name: str
    number: str
    copies: int

    @property
    def opening(self) -> str:
        """The words before the number."""
        return f"The identity number of {self.name} is"


@dataclass(frozen=True)
class Exposed:
    """Secrets that were in as many units each, and what an adapter gives away of them.

    Attributes:
        copies: units that hold such a secret, all of one institution; 0: it was in none.
        secrets: how many there are.
        bits: mean exposure; log2 of the number of candidates at most.
        told: how many the model writes after the words before them.
    """

    copies: int
    secrets: int
    bits: float
    told: int


@dataclass(frozen=True)
class Exposure:
    """The exposure of secrets with the run's privacy, and without any.

    Attributes:
        candidates: numbers among which a secret is ranked.
        rounds: that were trained, of the run's ``num_rounds``.
        num_rounds: of the run.
        private, open: for each number of copies, with the run's privacy and without any.
        void: why nothing was trained; None where it was.
    """

    candidates: int = 0
    rounds: int = 0
    num_rounds: int = 0
    private: tuple[Exposed, ...] = ()
    open: tuple[Exposed, ...] = ()
    void: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return its fields, the units of the institution, the most bits, and the largest number of copies."""
        most = math.log2(self.candidates) if self.candidates else 0.0
        return {**asdict(self), "units": _UNITS, "most": most, "group": max(COPIES)}


def expose(run: RunConfig, chance: np.random.Generator | None = None) -> Exposure:
    """Train one institution's made-up texts with secrets in some, with the run's privacy and without, and rank them.

    Where the run shares its noise, the institution adds as much as its sum is promised: as if all others told theirs.

    Args:
        run: locked.
        chance: draws the numbers; None: the operating system's seed.
    """
    if not isinstance(run.task, CausalLM):
        return Exposure(void=f"task.kind = {run.task.kind!r} learns no text to write")
    if not all(_fits(_small(run), Secret(name, "0" * 7, 1)) for name in _NAMES):
        return Exposure(void=f"task.max_length = {run.task.max_length} leaves no room for a secret's text")
    chance = chance or np.random.default_rng()
    secrets = [Secret(name, _number(chance), COPIES[place % len(COPIES)]) for place, name in enumerate(_NAMES)]
    small = _small(run)
    rounds = _affordable(small, warm_model(small, small.speed))
    small = small.model_copy(update={"federation": small.federation.model_copy(update={"num_rounds": rounds})})
    others = [_number(chance) for _ in range(CANDIDATES - 1)]
    found = [
        _exposed(this, rerun(this, {"audited": records_of(this, secrets)}).finished, secrets, others)
        for this in (small, without_privacy(small))
    ]
    return Exposure(CANDIDATES, rounds, run.federation.num_rounds, found[0], found[1])


def records_of(run: RunConfig, secrets: list[Secret]) -> list[dict[str, Any]]:
    """Return one record for each of 100 units: those with secrets, and made-up ones."""
    held = [_record(run.task, secret, secret.number) for secret in secrets for _ in range(secret.copies)]
    rest = [run.task.made_up(3, number, _WORDS) for number in range(_UNITS - len(held))]
    grouped = run.privacy.unit == "group"
    return [
        {**record, "group": f"unit {number}"} if grouped else record for number, record in enumerate([*held, *rest])
    ]


def bits_of(own: float, others: NDArray[np.float64]) -> float:
    """Return the exposure of a secret by its loss and those of the other candidates; equal losses count half.

    >>> bits_of(0.1, np.array([0.2, 0.3, 0.4])), bits_of(0.5, np.array([0.2, 0.3, 0.4]))
    (2.0, 0.0)
    """
    rank = 1 + (others < own).sum() + (others == own).sum() / 2
    return math.log2(len(others) + 1) - math.log2(rank)


def _exposed(run: RunConfig, state: State, secrets: list[Secret], others: list[str]) -> tuple[Exposed, ...]:
    model = warm_model(run, run.speed)
    set_state(model.module, state)
    bits, told = [], _told(model, secrets)
    for secret in secrets:
        records = [_record(run.task, secret, number) for number in (secret.number, *others)]
        losses = np.array([total for total, _ in predict(model, records)])
        bits.append(bits_of(losses[0], losses[1:]))
    return tuple(
        Exposed(copies, len(own), float(np.mean([bits[place] for place in own])), sum(told[place] for place in own))
        for copies in COPIES
        if (own := [place for place, secret in enumerate(secrets) if secret.copies == copies])
    )


def _told(model: WarmModel, secrets: list[Secret]) -> list[bool]:
    """Return of each secret whether the model writes its number; blanks and marks between digits do not count."""
    opened = [_record(model.task, secret, None) for secret in secrets]
    return [
        secret.number in re.sub(r"\D", "", text) for secret, text in zip(secrets, write(model, opened), strict=True)
    ]


def _record(task: Any, secret: Secret, number: str | None) -> dict[str, Any]:
    """Return a secret as a record of the run's form, with this number; None: without any, for the model to write it."""
    if number is None:
        record: dict[str, Any] = task.from_text(secret.opening)
        return record
    if task.form == "text":
        return {"text": f"{secret.opening} {number}"}
    if task.form == "completion":
        return {"prompt": secret.opening, "completion": f" {number}"}
    return {
        "messages": [{"role": "user", "content": secret.opening}, {"role": "assistant", "content": number}],
    }


def _fits(run: RunConfig, secret: Secret) -> bool:
    """Return whether a secret's whole text is one example."""
    longer = run.task.model_copy(update={"max_length": 1024})
    tokenizer = warm_model(run, run.speed).tokenizer
    record = _record(run.task, secret, secret.number)
    return longer.examples(record, tokenizer) == run.task.examples(record, tokenizer)


def _number(chance: np.random.Generator) -> str:
    return str(chance.integers(1_000_000, 10_000_000))


def _small(run: RunConfig) -> RunConfig:
    """Return the run for one institution, with local noise, short texts and small micro-batches."""
    run = with_local_noise(run)
    sections = {
        "study": run.study.model_copy(update={"institutions": ()}),
        "federation": run.federation.model_copy(update={"min_clients": 1, "participation": 1.0}),
        "task": run.task.model_copy(
            update={"max_length": min(run.task.max_length, _TOKENS), "max_windows": 1, "max_new_tokens": 24}
        ),
        "speed": run.speed.model_copy(update={"tokens_per_micro_batch": 2 * _TOKENS}),
        "evaluation": EvaluationSection(),
        "release": ReleaseSection(),
        "simulation": None,
    }
    return run.model_copy(update=sections)


def _affordable(run: RunConfig, model: WarmModel, clock: Callable[[], float] = time.monotonic) -> int:
    """Return how many of the run's rounds take two minutes at most, by the time of a step on one text."""
    text = model.task.examples(run.task.made_up(3, 0, _WORDS), model.tokenizer)[0]
    lone_update(model, text, PLAIN)  # the first step of a process takes longer
    began = clock()
    lone_update(model, text, PLAIN)
    a_round = (clock() - began) * _UNITS * run.local.sampling_probability * run.local.steps
    return max(1, min(run.federation.num_rounds, int(_SECONDS / a_round)))
