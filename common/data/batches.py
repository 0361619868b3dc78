"""Encoded examples as tensors."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Example = dict[str, Any]
Batch = dict[str, Tensor]

# Each row is padded to a multiple of this, and its own unit decides the length. If all rows have one padded length, a
# row's result does not depend on the other rows at all, whatever the precision (docs/decisions.md).
_STEP = 8


def length(example: Example) -> int:
    """Return the number of tokens."""
    return len(example["input_ids"])


def padded_length(num_tokens: int) -> int:
    """Return the length to which a row of so many tokens is padded: the next multiple of 8.

    >>> padded_length(9), padded_length(16)
    (16, 16)
    """
    return -(-num_tokens // _STEP) * _STEP


def collate(examples: list[Example], padded: int, pad_token_id: int, device: torch.device) -> Batch:
    """Stack examples: ``input_ids`` and ``attention_mask`` of shape ``(B, padded)``, numbers of shape ``(B,)``."""
    ids = [example["input_ids"] + [pad_token_id] * (padded - length(example)) for example in examples]
    mask = [[1] * length(example) + [0] * (padded - length(example)) for example in examples]
    batch: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    for name in examples[0]:
        if name != "input_ids":
            batch[name] = [example[name] for example in examples]
    return {name: torch.tensor(values, device=device) for name, values in batch.items()}


def sorted_batches(examples: list[Example], tokens: int) -> Iterator[list[int]]:
    """Yield indices of examples in batches of similar length: at least one example, at most ``tokens`` with padding."""
    batch: list[int] = []
    for index in sorted(range(len(examples)), key=lambda index: length(examples[index])):
        if batch and (len(batch) + 1) * length(examples[index]) > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
