"""A locked run carried out once more on records of the caller's choice, and losses of units under its adapters."""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from confide.client.config import DatasetSection
from confide.client.data.units import gather_units
from confide.common.config.run import RunConfig
from confide.common.data.batches import Example, collate, length, padded_length
from confide.common.data.records import Record
from confide.common.errors import ConfideError
from confide.common.model.adapter import set_state
from confide.common.model.warm_model import WarmModel
from confide.common.tensors import State
from confide.common.training.optimizer import GlobalState
from confide.simulations.engines.federation import Federation, simulate, start
from confide.simulations.engines.grid import SkippingClock
from confide.simulations.sites.simulated_sites import simulated_sites
from confide.simulations.studies.study import explained

_MAX_RECORDS: int = DatasetSection.model_fields["max_records_per_group"].default  # a simulated institution's
Unit = list[Example]


@dataclass(frozen=True)
class Reran:
    """The results of a run: the adapter after each round, the one that it released, and the one that it began with."""

    start: State
    rounds: list[GlobalState]
    finished: State


def rerun(run: RunConfig, private: dict[str, list[Record]]) -> Reran:
    """Carry out a locked run on this machine, as `confide simulate` does, without tests and without files.

    Args:
        run: locked.
        private: records by institution, whose names are those of the run.

    Raises:
        ConfideError: too few institutions remain; the message gives their reasons.
    """
    rounds: list[GlobalState] = []
    with tempfile.TemporaryDirectory() as folder:
        sites = simulated_sites(run, lambda _: private, Path(folder))
        federation = Federation(run, sites, {}, lambda event: None, lambda number, state, *_: rounds.append(state))
        state = start(federation, SkippingClock())
        try:
            simulate(federation, state)
        except ConfideError as error:
            raise explained(error, sites.refused) from None
    return Reran(state.job.initial, rounds, state.trained.average)


def encoded(model: WarmModel, records: list[Record], secret: bytes) -> list[Unit]:
    """Return the units of records that can be learnt from, in the order of their keyed names."""
    gathered = gather_units(records, model.task, model.tokenizer, secret, _MAX_RECORDS)
    units = ([example for _, examples in unit for example in examples if length(example)] for unit in gathered)
    return [unit for unit in units if unit]


def unit_losses(model: WarmModel, units: list[Unit], state: State) -> NDArray[np.float64]:
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
