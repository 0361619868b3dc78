"""Membership inference on a finished adapter: who was trained on, by the loss, beside the accountant's bound."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from confide.common.config.run import RunConfig, load_run, make_plan
from confide.common.errors import InputError
from confide.common.export.load import load_adapter
from confide.common.export.start import initial_state
from confide.common.model.adapter import get_state
from confide.common.model.warm_model import warm_model
from confide.common.privacy.accounting import attack_true_positive_rate, round_up
from confide.common.privacy.plan import PrivacyPlan
from confide.simulations.audit.bounds import most_hits
from confide.simulations.audit.lira import offline, online, scaled
from confide.simulations.audit.shadows import FOLDER, Pool, Shadows, pool_of, shadow_runs
from confide.simulations.data.texts import SOURCES

FALSE_ALARMS = 0.01
_CURVE = np.linspace(0, 1, 201)
Scores = dict[str, NDArray[np.float64]]  # of each unit, by attack: the higher, the likelier a member


@dataclass(frozen=True)
class Membership:
    """The members that attacks by loss found, and the most that any attack can find.

    Attributes:
        members: units that the run trained on.
        outsiders: units of the same institutions that it did not.
        hits: by attack, the share of members that it finds while it accuses at most 1 % of outsiders.
        curves: by attack, hits at 201 rates of false alarms from 0 to 1.
        most_hits: the accountant's bound at 1 %.
        bound: the accountant's bound at the same rates.
        colluding: the most members of a sum that may collude where that bound holds; None where no noise is shared.
        shadows: the number of shadow runs.
    """

    members: int
    outsiders: int
    hits: dict[str, float]
    curves: dict[str, list[float]]
    most_hits: float
    bound: list[float]
    colluding: int | None = None
    shadows: int = 0

    def sentence(self) -> str:
        """Return the result in words, with the condition under which its bound holds."""
        most = round_up(self.most_hits, 3)
        shared = f", if at most {self.colluding} members of a sum collude" if self.colluding is not None else ""
        return (
            f"an attacker who accuses {FALSE_ALARMS:.0%} of outsiders finds at most {most:.1%} of members"
            f"{shared}; our best attack found {max(self.hits.values()):.1%}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return all of it, with the sentence."""
        return {
            "members": self.members,
            "outsiders": self.outsiders,
            "hits_at_1_percent": {name: round(value, 4) for name, value in self.hits.items()},
            "at_most": self.most_hits,
            "max_colluding": self.colluding,
            "shadow_runs": self.shadows,
            "sentence": self.sentence(),
            "picture": self.picture(),
        }

    def picture(self) -> str:
        """Return the curves and the bound as a picture in text form."""
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes: Axes = figure.subplots()
        axes.plot(_CURVE, self.bound, color="#a8501f", linestyle="--", label="at most, by the accountant")
        for name, curve in self.curves.items():
            axes.plot(_CURVE, curve, label=name)
        axes.plot(_CURVE, _CURVE, color="#bcc7cd", linewidth=1, label="a coin")
        axes.set(xlabel="share of outsiders that is accused", ylabel="share of members that is found")
        axes.legend(fontsize=8)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
        return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def _silently(line: str) -> None:
    """Tell nobody."""


def attack_finished(folder: Path, num_shadows: int = 0, tell: Callable[[str], None] = _silently) -> Membership:
    """Attack the finished adapter of a simulation on texts that packages carry.

    Args:
        folder: of a simulated run.
        num_shadows: shadow runs of the likelihood-ratio attack; an even number, 0 for none.
        tell: gets a line before the shadow runs, and one after each.

    Raises:
        InputError: the records are somebody's own, the run has no privacy, or the number is odd.
    """
    run, plan = require_attackable(folder, num_shadows)
    finished = get_state(load_adapter(folder)[1].module)
    pool = pool_of(run, warm_model(run, run.speed))
    scores = loss_scores(pool, finished)
    if num_shadows:
        tell(cost(folder, num_shadows))
        shadows = shadow_runs(pool, num_shadows, folder / FOLDER, tell)
        scores |= shadow_scores(run, pool.losses(finished), shadows)
    return _measured(scores, pool.members, plan, num_shadows)


def loss_scores(pool: Pool, finished: Any) -> Scores:
    """Return the scores of attacks that look at the finished adapter alone."""
    model = warm_model(pool.run, pool.run.speed)
    before, after = pool.losses(initial_state(pool.run, model)), pool.losses(finished)
    return {"low loss": -after, "loss against the start": before - after}


def shadow_scores(run: RunConfig, losses: NDArray[np.float64], shadows: Shadows) -> Scores:
    """Return the scores of the likelihood-ratio attack on a finished adapter's losses, in both forms."""
    seen, others = (scaled(each, likely=run.task.likely) for each in (losses, shadows.losses))
    return {
        "likelihood ratio (LiRA)": online(seen, others, shadows.inside),
        "LiRA, from runs without the unit": offline(seen, others, shadows.inside),
    }


def _measured(scores: Scores, inside: NDArray[np.bool], plan: PrivacyPlan, num_shadows: int) -> Membership:
    rate = np.array([FALSE_ALARMS])
    return Membership(
        int(inside.sum()),
        int((~inside).sum()),
        {name: float(hits_at(each[inside], each[~inside], rate)[0]) for name, each in scores.items()},
        {name: list(map(float, hits_at(each[inside], each[~inside], _CURVE))) for name, each in scores.items()},
        round_up(attack_true_positive_rate(plan, FALSE_ALARMS)),
        [most_hits(plan, plan.num_steps, float(rate)) for rate in _CURVE],
        plan.sharing.max_colluding if plan.sharing else None,
        num_shadows,
    )


def cost(folder: Path, num_shadows: int) -> str:
    """Return a line about the time that shadow runs take, by the rounds of the finished run."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    seconds = sum({line["round"]: line["seconds"] for line in map(json.loads, lines)}.values())
    there = len(list((folder / FOLDER).glob("*.npz")))
    left = max(0, num_shadows - there)
    return (
        f"{left} shadow runs of about {seconds:.0f} s each, as the rounds of {folder} took: {left * seconds / 60:.0f} "
        f"minutes in all; what is done stays in {folder / FOLDER}"
    )


def require_attackable(folder: Path, num_shadows: int) -> tuple[RunConfig, PrivacyPlan]:
    """Return the locked run and the plan of a finished simulation; errors as of `attack_finished`."""
    run = run_of(folder)
    plan = make_plan(run, run.local.nominal_units)
    if not isinstance(plan, PrivacyPlan):
        raise InputError('privacy.unit = "none": no bound on attacks is stated; audit a run with privacy')
    if num_shadows % 2:
        raise InputError(
            f"--shadows {num_shadows} must be even: every second of these runs takes the units that the one before "
            "left out"
        )
    return run, plan


def run_of(folder: Path) -> RunConfig:
    """Return the locked run of a simulation's folder, with its `[simulation]`.

    Raises:
        InputError: there is none, its records are somebody's own, or its institutions were real ones.
    """
    path = folder / "run.lock.toml"
    if not path.is_file():
        raise InputError(f"{folder}: has no run.lock.toml, must be the folder of a finished simulation; name that")
    run = load_run(path)
    if run.simulation is None or run.simulation.data not in SOURCES:
        raise InputError(
            f"{folder}: membership is attacked only on texts that packages carry ({', '.join(SOURCES)}); what an "
            "attack finds of private records is no public number"
        )
    if not json.loads((folder / "privacy.json").read_bytes())["simulated"]:
        raise InputError(f"{folder}: its institutions were real ones (--site), whose records are not attacked")
    return run


def hits_at(members: NDArray[np.float64], outsiders: NDArray[np.float64], rates: NDArray[np.float64]) -> Any:
    """Return the share of members above the lowest threshold that keeps false alarms within each rate.

    Of equal scores as large a share is accused, by chance, as the rate leaves room for: a well-trained model has many
    losses of exactly zero.

    >>> hits_at(np.array([3.0, 1.0]), np.array([2.0, 0.0]), np.array([0.0, 0.5])).tolist()
    [0.5, 1.0]
    >>> hits_at(np.zeros(4), np.zeros(4), np.array([0.25])).tolist()
    [0.25]
    """
    descending = np.append(-np.sort(-outsiders), -np.inf)
    allowed = np.floor(rates * len(outsiders) + 1e-9).astype(int)
    first_spared = descending[allowed]
    above = (outsiders[None, :] > first_spared[:, None]).sum(axis=1)
    equal = (outsiders[None, :] == first_spared[:, None]).sum(axis=1)
    room = np.where(equal > 0, (allowed - above) / np.maximum(1, equal), 1.0)
    over = (members[None, :] > first_spared[:, None]).mean(axis=1)
    return over + room * (members[None, :] == first_spared[:, None]).mean(axis=1)
