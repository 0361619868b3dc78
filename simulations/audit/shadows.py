"""Shadow runs: a finished run carried out again on random halves of its units, and of units that it never saw."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from confide.client.data.units import split_records
from confide.common.config.run import RunConfig
from confide.common.data.records import MAX_CHARS, Record
from confide.common.errors import InputError
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.tensors import State
from confide.simulations.audit.observers import Inside
from confide.simulations.data.institutions import load_institutions
from confide.simulations.data.partition import gather
from confide.simulations.sites.simulated_sites import simulated_secret
from confide.simulations.studies.reruns import Unit, encoded, rerun, unit_losses

FOLDER = "shadows"  # of a run's folder: each shadow run is kept, so an attack goes on where it stopped


@dataclass(frozen=True)
class Person:
    """A unit with its records, at an institution."""

    institution: str
    records: list[Record]
    examples: Unit
    member: bool


@dataclass(frozen=True)
class Pool:
    """All units of a run's institutions that can be learnt from: members of the run, and outsiders.

    Members are those that the run trained on. Outsiders are the held-out and the test units of the same institutions.
    """

    run: RunConfig
    people: list[Person]

    @property
    def members(self) -> Inside:
        """True for each member, shape ``(U,)``."""
        return np.array([person.member for person in self.people])

    def losses(self, state: State) -> NDArray[np.float64]:
        """Return each unit's loss under a state, shape ``(U,)``."""
        return unit_losses(warm_model(self.run, self.run.speed), [person.examples for person in self.people], state)

    def half(self, chance: np.random.Generator) -> Inside:
        """Return a random half of each institution's units, members and outsiders alike."""
        inside = np.zeros(len(self.people), np.bool)
        for name in dict.fromkeys(person.institution for person in self.people):
            places = np.array([place for place, person in enumerate(self.people) if person.institution == name])
            inside[chance.permutation(places)[: (len(places) + int(chance.integers(2))) // 2]] = True
        return inside

    def trained_on(self, inside: Inside) -> State:
        """Carry the run out on these units, all of them for training, and return the adapter that it releases."""
        private: dict[str, list[Record]] = {person.institution: [] for person in self.people}
        for person in (person for person, chosen in zip(self.people, inside, strict=True) if chosen):
            private[person.institution] += person.records
        if self.run.simulation is None:
            raise InputError("[simulation] is missing")
        all_for_training = self.run.simulation.model_copy(update={"validation_fraction": 0.0})
        return rerun(self.run.model_copy(update={"simulation": all_for_training}), private).finished

    def sha256(self) -> str:
        """Return the hash of the run and of the units, in their order."""
        digest = hashlib.sha256(self.run.canonical_json().encode())
        for person in self.people:
            digest.update(json.dumps([person.institution, person.records], sort_keys=True, default=str).encode())
        return digest.hexdigest()


def pool_of(run: RunConfig, model: WarmModel) -> Pool:
    """Return the units of a simulated run's institutions."""
    found = load_institutions(run)
    share = run.simulation.validation_fraction if run.simulation else 0.0
    people = list[Person]()
    for name, records in found.private.items():
        secret = simulated_secret(run, name)
        cut = [run.task.cut(dict(record), MAX_CHARS) for record in records]
        trained, held_out = split_records(cut, secret, share)
        for rows, member in ((trained, True), (held_out, False), (found.public.get(name, []), False)):
            for unit in gather(rows):
                people += [Person(name, unit, one, member) for one in encoded(model, unit, secret)]
    return Pool(run, people)


@dataclass(frozen=True)
class Shadows:
    """Losses of all units in each shadow run, and who was in it, shape ``(S, U)``."""

    losses: NDArray[np.float64]
    inside: Inside


def shadow_runs(pool: Pool, count: int, folder: Path, tell: Callable[[str], None]) -> Shadows:
    """Carry out so many shadow runs, but for those that the folder holds already.

    Every second run takes the units that the one before it left out. So each unit is in half of the runs.

    Args:
        pool: all units.
        count: an even number.
        folder: for the results, one file a run.
        tell: gets a line after each run.

    Raises:
        InputError: the folder holds shadow runs of another run.
    """
    folder.mkdir(exist_ok=True)
    made_for, losses, halves = pool.sha256(), [], list[Inside]()
    for number in range(count):
        path = folder / f"{number:04}.npz"
        if not path.exists():
            inside = ~halves[-1] if number % 2 else pool.half(np.random.default_rng())
            _keep(path, made_for, inside, pool.losses(pool.trained_on(inside)))
            tell(f"shadow run {number + 1} of {count}: done")
        kept = np.load(path)
        if str(kept["made_for"]) != made_for:
            raise InputError(f"{path}: a shadow run of another run, or of other data; remove {folder}")
        losses.append(kept["losses"])
        halves.append(kept["inside"])
    return Shadows(np.stack(losses), np.stack(halves))


def _keep(path: Path, made_for: str, inside: Inside, losses: NDArray[np.float64]) -> None:
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        np.savez(file, made_for=np.array(made_for), inside=inside, losses=losses)
    os.replace(temporary, path)
