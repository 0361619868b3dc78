"""Membership inference on a finished adapter: who was trained on, by the loss, beside the accountant's bound."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from confide.client.data.units import gather_units, split_records
from confide.common.config.run import RunConfig, make_plan
from confide.common.data.batches import Example, collate, length, padded_length
from confide.common.data.records import MAX_CHARS, Record
from confide.common.errors import InputError
from confide.common.export.load import load_adapter
from confide.common.export.start import initial_state
from confide.common.model.adapter import get_state, set_state
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.accounting import attack_true_positive_rate, round_up
from confide.common.privacy.plan import PrivacyPlan
from confide.simulations.audit.bounds import most_hits
from confide.simulations.data.institutions import load_institutions
from confide.simulations.data.texts import SOURCES
from confide.simulations.sites.simulated_sites import simulated_secret

FALSE_ALARMS = 0.01
_MOST_RECORDS = {"record": 1, "group": 8}  # of a unit, as a simulated institution uses them
_CURVE = np.linspace(0, 1, 201)
Unit = list[Example]


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
    """

    members: int
    outsiders: int
    hits: dict[str, float]
    curves: dict[str, list[float]]
    most_hits: float
    bound: list[float]

    def sentence(self) -> str:
        """Return the result in words."""
        best = max(self.hits.values())
        return (
            f"an attacker who accuses {FALSE_ALARMS:.0%} of outsiders finds at most {self.most_hits:.1%} of members; "
            f"our best attack found {best:.1%}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return all of it, with the sentence."""
        return {
            "members": self.members,
            "outsiders": self.outsiders,
            "hits_at_1_percent": {name: round(value, 4) for name, value in self.hits.items()},
            "at_most": self.most_hits,
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


def attack_finished(folder: Path) -> Membership:
    """Attack the finished adapter of a simulation on texts that packages carry.

    Args:
        folder: of a simulated run, or its adapter.

    Raises:
        InputError: the records are somebody's own, or the run has no privacy.
    """
    run, model = load_adapter(folder)
    run = _simulation_of(run, folder)
    plan = make_plan(run, run.local.nominal_units)
    if not isinstance(plan, PrivacyPlan):
        raise InputError('privacy.unit = "none": no bound on attacks is stated; audit a run with privacy')
    members, outsiders = _sides(run, model)
    trained = _losses(model, [*members, *outsiders], get_state(model.module))
    before = _losses(model, [*members, *outsiders], initial_state(run, model))
    inside = np.arange(len(trained)) < len(members)
    scores = {"low loss": -trained, "loss against the start": before - trained}
    curves = {name: hits_at(values[inside], values[~inside], _CURVE) for name, values in scores.items()}
    hits = {name: float(hits_at(s[inside], s[~inside], np.array([FALSE_ALARMS]))[0]) for name, s in scores.items()}
    most = round_up(attack_true_positive_rate(plan, FALSE_ALARMS))
    bound = [most_hits(plan, plan.num_steps, float(rate)) for rate in _CURVE]
    return Membership(
        len(members),
        len(outsiders),
        hits,
        {name: list(map(float, curve)) for name, curve in curves.items()},
        most,
        bound,
    )


def _simulation_of(run: RunConfig, folder: Path) -> RunConfig:
    """Return the run with its `[simulation]`, which an exported adapter leaves out."""
    from confide.common.config.run import load_run

    places = [folder / "run.lock.toml", folder.parent / "run.lock.toml"]
    found = next((load_run(path) for path in places if path.is_file()), run)
    if found.simulation is None or found.simulation.data not in SOURCES:
        raise InputError(
            f"{folder}: membership is attacked only on texts that packages carry ({', '.join(SOURCES)}); what an "
            "attack finds of private records is no public number"
        )
    return found


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


def _sides(run: RunConfig, model: WarmModel) -> tuple[list[Unit], list[Unit]]:
    """Return units that were trained on, and units of the same institutions that were not."""
    found, most = load_institutions(run), _MOST_RECORDS[run.privacy.unit]
    share = run.simulation.validation_fraction if run.simulation else 0.0
    members, outsiders = list[Unit](), list[Unit]()
    for name, records in found.private.items():
        secret = simulated_secret(run, name)
        cut = [run.task.cut(dict(record), MAX_CHARS) for record in records]
        trained, held_out = split_records(cut, secret, share)
        members += _units(model, trained, secret, most)
        outsiders += _units(model, held_out, secret, most)
        outsiders += _units(model, found.public.get(name, []), secret, most)
    return members, outsiders


def _units(model: WarmModel, records: list[Record], secret: bytes, most: int) -> list[Unit]:
    gathered = gather_units(records, model.task, model.tokenizer, secret, most)
    units = ([example for _, examples in unit for example in examples if length(example)] for unit in gathered)
    return [unit for unit in units if unit]


def _losses(model: WarmModel, units: list[Unit], state: Any) -> NDArray[np.float64]:
    """Return the mean loss of each unit under a state, shape ``(U,)``."""
    set_state(model.module, state)
    examples = [(place, example) for place, unit in enumerate(units) for example in unit]
    sums, counts = np.zeros(len(units)), np.zeros(len(units))
    for part in _by_length(examples):
        longest = padded_length(max(length(example) for _, example in part))
        batch = collate([example for _, example in part], longest, model.pads, model.device)
        with torch.no_grad():
            losses = model.task.losses(model.module, batch).double().cpu().numpy()
        np.add.at(sums, [place for place, _ in part], losses)
        np.add.at(counts, [place for place, _ in part], 1)
    return np.asarray(sums / counts)


def _by_length(examples: list[tuple[int, Example]], rows: int = 32) -> Iterable[list[tuple[int, Example]]]:
    ordered = sorted(examples, key=lambda one: length(one[1]))
    return (ordered[start : start + rows] for start in range(0, len(ordered), rows))
