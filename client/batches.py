"""Units as micro-batches: of one padded length each, filled by tokens, bounded in memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from confide.client.prefixes import Place, Prefixes, empty_prefixes
from confide.client.units import UnitTable
from confide.common.adapter import schema
from confide.common.batches import Batch, Example, collate, length, padded_length
from confide.common.warm_model import PREFIX, WarmModel


@dataclass(frozen=True)
class BatchedUnits:
    """A unit table as the private step reads it.

    Attributes:
        table: the units.
        pad_token_id: fills short rows; attention never reads it.
        tokens_per_micro_batch: bound on rows times padded length; sets memory and speed, not the result.
        max_rows: bound on rows, for the matrix of rows by parameters.
        device: where batches go.
        prefixes: what the frozen lower layers make of the examples, where that is kept.
    """

    table: UnitTable
    pad_token_id: int
    tokens_per_micro_batch: int
    max_rows: int
    device: torch.device
    prefixes: Prefixes | None = None

    @property
    def num_units(self) -> int:
        """Number of units (private)."""
        return self.table.num_units

    def micro_batches(self, drawn: list[int]) -> Iterator[tuple[Batch, list[int]]]:
        """Micro-batches over all examples of the drawn units, short units first, one padded length in each.

        Yields:
            ``(batch, unit_B)``; the examples of a unit stand side by side and may run on into the next batch.
        """
        for places, padded in self.places(drawn):
            yield self.batch(places, padded), [unit for unit, _ in places]

    def places(self, drawn: list[int]) -> Iterator[tuple[list[Place], int]]:
        """Which examples make up each micro-batch, and their padded length."""
        places: list[Place] = []
        padded = 0
        for unit in sorted(drawn, key=self._padded_length):
            if self._padded_length(unit) != padded and places:
                yield places, padded
                places = []
            padded = self._padded_length(unit)
            most = self.most_rows(padded)
            for number, example in enumerate(self.table.units[unit]):
                if not length(example):  # without tokens there is nothing to learn from
                    continue
                if len(places) == most:
                    yield places, padded
                    places = []
                places.append((unit, number))
        if places:
            yield places, padded

    def most_rows(self, padded: int) -> int:
        """How many rows of a padded length a micro-batch may have."""
        return min(self.max_rows, max(1, self.tokens_per_micro_batch // padded)) if padded else 1

    def batch(self, places: list[Place], padded: int) -> Batch:
        """One micro-batch."""
        examples = self.examples(places)
        batch = collate(examples, padded, self.pad_token_id, self.device)
        if self.prefixes is not None:
            batch[PREFIX] = self.prefixes.take(places, list(map(length, examples)), padded).to(self.device)
        return batch

    def examples(self, places: list[Place]) -> list[Example]:
        """The examples that stand there."""
        return [self.table.units[unit][number] for unit, number in places]

    def _padded_length(self, unit: int) -> int:
        return padded_length(max(map(length, self.table.units[unit]), default=0))


_MAX_GRADIENT_NUMBERS = 2**26  # in a micro-batch's matrix of rows by parameters: 256 MB of float32


def batch_units(table: UnitTable, model: WarmModel, tokens_per_micro_batch: int) -> BatchedUnits:
    """A unit table with the bounds that a model sets: a server may ask for a rank at which few rows fit."""
    size = sum(math.prod(shape) for shape in schema(model.module).values())
    most = max(1, _MAX_GRADIENT_NUMBERS // size)
    return BatchedUnits(table, model.pad_token_id, tokens_per_micro_batch, most, model.device)


def with_prefixes(units: BatchedUnits, model: WarmModel, folder: Path) -> BatchedUnits:
    """The same units with what the model's lower layers make of them, where it has such layers and the disk room."""
    if model.lower is None:
        return units
    lengths = (
        ((number, place), length(example))
        for number, unit in enumerate(units.table.units)
        for place, example in enumerate(unit)
    )
    prefixes = empty_prefixes(lengths, model.lower.hidden_size, folder)
    if prefixes is None:
        return units
    for places, padded in units.places(list(range(units.num_units))):
        states = model.lower_states(units.batch(places, padded))
        prefixes.put(places, list(map(length, units.examples(places))), states)
    return replace(units, prefixes=prefixes)
