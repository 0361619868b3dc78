"""Units as micro-batches of public shapes."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from confide.client.data.units import UnitTable
from confide.client.training.prefixes import Place, Prefixes, empty_prefixes
from confide.common.data.batches import Batch, Example, collate, length
from confide.common.data.shapes import Shape, Shapes
from confide.common.model.warm_model import PREFIX, WarmModel
from confide.common.privacy.step import of_devices


@dataclass(frozen=True)
class BatchedUnits:
    """A unit table as the private step reads it.

    Attributes:
        table: the units.
        pads: the value that fills each column of a short row; attention never reads it.
        shapes: those that a micro-batch may have, as `trial.tried_shapes` found them.
        device: the device of the batches.
        prefixes: the frozen lower layers' outputs for the examples, if they are kept.
    """

    table: UnitTable
    pads: Mapping[str, int]
    shapes: Shapes
    device: torch.device
    prefixes: Prefixes | None = None

    @property
    def num_units(self) -> int:
        """Number of units (private)."""
        return self.table.num_units

    def num_examples(self, unit: int) -> int:
        """Return how many examples of a unit hold a token; only these are trained on."""
        return sum(length(example) > 0 for example in self.table.units[unit])

    def turn(self, unit: int) -> int:
        """Return a checksum of a unit's own tokens."""
        return zlib.crc32(repr([example["input_ids"] for example in self.table.units[unit]]).encode())

    def micro_batches(self, drawn: list[int]) -> Iterator[tuple[Batch, list[int]]]:
        """Yield micro-batches over all examples of the drawn units, long units first.

        Yields:
            ``(batch, unit_B)``; the examples of a unit stand side by side and may run on into the next batch. Rows
            beyond ``unit_B`` only fill the batch up.
        """
        for places, shape in self.places(drawn):
            yield self.batch(places, shape), [unit for unit, _ in places]

    def places(self, drawn: list[int]) -> Iterator[tuple[list[Place], Shape]]:
        """Yield the places of the examples of each micro-batch, and its shape.

        Every example is padded for the longest of its own unit, so that no other unit decides how it is computed.
        """
        lengths = {unit: self._padded_length(unit) for unit in drawn}
        rows = [
            (unit, number)
            for unit in sorted(drawn, key=lambda unit: -lengths[unit])
            for number, example in enumerate(self.table.units[unit])
            if length(example)  # without tokens there is nothing to learn from
        ]
        cut = self.shapes.cover([lengths[unit] for unit, _ in rows])
        remaining = iter(rows)
        for shape, count in cut:
            yield list(islice(remaining, count)), shape

    def batch(self, places: list[Place], shape: Shape) -> Batch:
        """Return one micro-batch; its last example fills the rows that are left."""
        rows, padded = shape
        places = places + places[-1:] * (rows - len(places))
        examples = self.examples(places)
        batch = collate(examples, padded, self.pads, self.device)
        if self.prefixes is not None:
            batch[PREFIX] = self.prefixes.take(places, list(map(length, examples)), padded).to(self.device)
        return batch

    def examples(self, places: list[Place]) -> list[Example]:
        """Return the examples at these places."""
        return [self.table.units[unit][number] for unit, number in places]

    def _padded_length(self, unit: int) -> int:
        return self.shapes.padded(max(map(length, self.table.units[unit]), default=0))


def batch_units(table: UnitTable, model: WarmModel, shapes: Shapes) -> BatchedUnits:
    """Return a unit table for a model, in shapes that were tried with it."""
    return BatchedUnits(table, model.pads, shapes, model.device)


def with_prefixes(units: BatchedUnits, model: WarmModel, folder: Path) -> BatchedUnits:
    """Return the same units with the lower layers' outputs, if the model has such layers and the disk has room.

    Of several devices each computes the outputs for the units that a step gives to it. Devices may differ in a last
    bit, and how full the disk is must not decide about it.
    """
    if model.lower is None:
        return units
    lengths = (
        ((number, place), length(example))
        for number, unit in enumerate(units.table.units)
        for place, example in enumerate(unit)
    )
    prefixes = empty_prefixes(lengths, model.lower.hidden_size * model.lower.texts, folder)
    if prefixes is None:
        return units
    devices = (model, *model.copies)
    for device, turns in zip(devices, of_devices(units, list(range(units.num_units)), len(devices)), strict=True):
        own = replace(units, device=device.device)
        for places, shape in own.places(turns):
            states = device.prefix(own.batch(places, shape))[: len(places)]
            prefixes.put(places, list(map(length, own.examples(places))), states)
    return replace(units, prefixes=prefixes)
