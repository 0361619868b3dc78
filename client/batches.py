"""Units as micro-batches: of one padded length each, filled by tokens, bounded in memory."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from confide.client.units import UnitTable
from confide.common.adapter import schema
from confide.common.batches import Batch, Example, collate, length
from confide.common.warm_model import WarmModel

# Rows are padded to a length that their own unit decides, a multiple of this: with one padded length a row's result
# does not depend on the other rows at all, whatever the precision (docs/decisions.md).
_STEP = 8


@dataclass(frozen=True)
class BatchedUnits:
    """A unit table as the private step reads it.

    Attributes:
        table: the units.
        pad_token_id: fills short rows; attention never reads it.
        tokens_per_micro_batch: bound on rows times padded length; sets memory and speed, not the result.
        max_rows: bound on rows, for the matrix of rows by parameters.
        device: where batches go.
    """

    table: UnitTable
    pad_token_id: int
    tokens_per_micro_batch: int
    max_rows: int
    device: torch.device

    @property
    def num_units(self) -> int:
        """Number of units (private)."""
        return self.table.num_units

    def micro_batches(self, drawn: list[int]) -> Iterator[tuple[Batch, list[int]]]:
        """Micro-batches over all examples of the drawn units, short units first, one padded length in each.

        Yields:
            ``(batch, unit_B)``; the examples of a unit stand side by side and may run on into the next batch.
        """
        rows: list[Example] = []
        owners: list[int] = []
        padded = 0
        for unit in sorted(drawn, key=self._padded_length):
            if self._padded_length(unit) != padded and rows:
                yield collate(rows, padded, self.pad_token_id, self.device), owners
                rows, owners = [], []
            padded = self._padded_length(unit)
            most = min(self.max_rows, max(1, self.tokens_per_micro_batch // padded)) if padded else 1
            for example in filter(length, self.table.units[unit]):  # without tokens there is nothing to learn from
                if len(rows) == most:
                    yield collate(rows, padded, self.pad_token_id, self.device), owners
                    rows, owners = [], []
                rows.append(example)
                owners.append(unit)
        if rows:
            yield collate(rows, padded, self.pad_token_id, self.device), owners

    def _padded_length(self, unit: int) -> int:
        longest = max(map(length, self.table.units[unit]), default=0)
        return -(-longest // _STEP) * _STEP


_MAX_GRADIENT_NUMBERS = 2**26  # in a micro-batch's matrix of rows by parameters: 256 MB of float32


def batch_units(table: UnitTable, model: WarmModel, tokens_per_micro_batch: int) -> BatchedUnits:
    """A unit table with the bounds that a model sets: a server may ask for a rank at which few rows fit."""
    size = sum(math.prod(shape) for shape in schema(model.module).values())
    most = max(1, _MAX_GRADIENT_NUMBERS // size)
    return BatchedUnits(table, model.pad_token_id, tokens_per_micro_batch, most, model.device)
