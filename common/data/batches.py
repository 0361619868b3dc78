"""Encoded examples as tensors."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Example = dict[str, Any]
Batch = dict[str, Tensor]

# Each row is padded to a multiple of this, and its own unit decides the length. If all rows have one padded length, a
# row's result does not depend on the other rows at all, whatever the precision (docs/decisions.md).
_STEP = 8


def length(example: Example) -> int:
    """Return the number of tokens: of a source and a target the larger one."""
    return max(len(value) for value in example.values() if isinstance(value, list))


def padded_length(num_tokens: int) -> int:
    """Return the length to which a row of so many tokens is padded: the next multiple of 8.

    >>> padded_length(9), padded_length(16)
    (16, 16)
    """
    return -(-num_tokens // _STEP) * _STEP


def shortened(example: Example, num_tokens: int) -> Example:
    """Return an example cut to so many tokens, with all of its columns."""
    return {name: value[:num_tokens] if isinstance(value, list) else value for name, value in example.items()}


def collate(examples: list[Example], padded: int, pads: Mapping[str, int], device: torch.device) -> Batch:
    """Stack examples: columns and ``attention_mask`` of shape ``(B, padded)``, numbers of shape ``(B,)``.

    Args:
        examples: with the same names.
        padded: tokens of each row.
        pads: the value that fills each column, ``input_ids`` among them (`WarmModel.pads`).
        device: of the tensors.
    """
    sizes = [len(example["input_ids"]) for example in examples]
    batch: dict[str, Any] = {"attention_mask": [[1] * size + [0] * (padded - size) for size in sizes]}
    for name in examples[0]:
        values = [example[name] for example in examples]
        batch[name] = [own + [pads[name]] * (padded - len(own)) for own in values] if name in pads else values
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
