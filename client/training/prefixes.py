"""Outputs of the frozen lower layers for every example, computed once for a run and read in every step of it."""

import mmap
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

Place = tuple[int, int]  # number of the unit, number of the example in it


@dataclass(frozen=True)
class Prefixes:
    """Hidden states below the lowest adapted layer, one row for each token.

    They lie in a memory-mapped file that has no name and belongs to this process. No other process can open it, and it
    is gone when this process ends, even by a kill. So it is never taken for the file of other texts, another base
    model or another truncation.

    Attributes:
        states_NH: all tokens of all examples, bfloat16.
        starts: row at which each example begins.
    """

    states_NH: Tensor
    starts: dict[Place, int]

    def put(self, places: list[Place], lengths: list[int], states_BTH: Tensor) -> None:
        """Keep the states of some examples; those of padding are dropped."""
        for place, length, states_TH in zip(places, lengths, states_BTH, strict=True):
            start = self.starts[place]
            self.states_NH[start : start + length] = states_TH[:length].to("cpu", torch.bfloat16)

    def take(self, places: list[Place], lengths: list[int], padded: int) -> Tensor:
        """Return their states, shape ``(B, padded, hidden)``, bfloat16; zero on padding, never read by attention."""
        states_BTH = torch.zeros(len(places), padded, self.states_NH.shape[1], dtype=torch.bfloat16)
        for row, (place, length) in enumerate(zip(places, lengths, strict=True)):
            start = self.starts[place]
            states_BTH[row, :length] = self.states_NH[start : start + length]
        return states_BTH


def empty_prefixes(lengths: Iterable[tuple[Place, int]], hidden_size: int, folder: Path) -> Prefixes | None:
    """Make room for the states of examples of these lengths; None if the disk has none: then they are computed."""
    starts, total = {}, 0
    for place, length in lengths:
        starts[place] = total
        total += length
    size = max(1, total) * hidden_size * 2
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk shows here, not as a signal in a step
            memory = mmap.mmap(file.fileno(), size)
    except OSError:
        return None
    return Prefixes(torch.frombuffer(memory, dtype=torch.bfloat16).view(-1, hidden_size), starts)
