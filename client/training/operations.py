"""The operations of a model: their sizes must follow from the shape of a batch alone, and fill whole vectors.

A mixture of experts sends each token to some experts. So the other rows of a batch decide how many rows an expert gets
and which kernel multiplies them. PyTorch computes numbers that do not fill a vector with other code, whose last bits
differ for some numbers. A trial of shapes finds neither unless its own made-up numbers show it.
"""

import math
from collections.abc import Collection, Iterable
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from confide.common.data.batches import Batch
from confide.common.model.warm_model import WarmModel

Size = tuple[int, ...]
Operation = tuple[str, tuple[Size, ...]]

_VECTOR = 64  # the most numbers that a loop takes at once: two vectors of 32 bfloat16 numbers
_GRAIN = 32_768  # the fewest numbers that a thread gets: at::internal::GRAIN_SIZE
# PyTorch 2.9 gave up to one number of sixteen other last bits in sigmoid, SiLU, GELU's tanh form, softplus, mish, the
# ELUs, sinh, exp2 and powers, with AVX-512; it computes the others through MKL, where it has MKL.
_ACTIVATIONS = {"sigmoid", "silu", "gelu", "softplus", "mish", "elu", "celu", "selu", "tanh", "log_sigmoid_forward"}
_FUNCTIONS = {"exp", "exp2", "expm1", "log", "log2", "log1p", "sinh", "cosh", "atan", "asinh", "erf", "pow"}


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Note each operation, and the sizes of its tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Operation] = []

    def __torch_dispatch__(self, operation: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        sizes = (tuple(leaf.shape) for leaf in tree_leaves((given, named)) if isinstance(leaf, Tensor))
        self.seen.append((str(operation), tuple(sizes)))
        return operation(*given, **(named or {}))


def fill_vectors(sizes: Iterable[Size], threads: int) -> bool:
    """Return whether every thread's share of tensors of these sizes fills whole vectors, so that no place is special.

    PyTorch gives each thread the same number of numbers, and the last thread the rest.

    >>> fill_vectors([(32, 64, 1536)], 4), fill_vectors([(32, 64, 1536)], 5)
    (True, False)
    """

    def fills(size: Size) -> bool:
        numbers = math.prod(size)
        sharing = min(threads, -(-numbers // _GRAIN))
        if sharing <= 1:
            return numbers % _VECTOR == 0
        return (size[-1] % _VECTOR, numbers % _VECTOR, -(-numbers // sharing) % _VECTOR) == (0, 0, 0)

    return all(map(fills, sizes))


def filling_threads(sizes: Collection[Size], threads: int) -> int:
    """Return the largest number of threads, up to a bound, whose shares fill whole vectors; else the bound.

    >>> filling_threads([(16, 128, 4864)], 12), filling_threads([(4, 3)], 12)
    (8, 12)
    """
    return next((count for count in range(threads, 0, -1) if fill_vectors(sizes, count)), threads)


def computed_by_vector(model: WarmModel, batch: Batch) -> set[Size]:
    """Return the sizes that a CPU computes in vectors and, if a vector is not full, number by number; none on a GPU."""
    if model.device.type != "cpu":
        return set()
    names = ((name.split(".")[1].rstrip("_"), sizes) for name, sizes in _operations(model, batch))
    largest = (max(sizes, key=math.prod) for name, sizes in names if sizes and name in _ACTIVATIONS | _FUNCTIONS)
    return {size for size in largest if math.prod(size) > 1}  # a single number is no row's


def follow_from_shape(model: WarmModel, one: Batch, other: Batch) -> bool:
    """Return whether two batches of one shape go through the same operations on the same sizes, and no experts.

    A library may hide an expert's sizes in one operation; so a configuration that names experts counts, too.
    """
    configs: list[Any] = [getattr(part, "config", None) for part in model.module.modules()]
    parts = [config.to_dict() for config in configs if isinstance(config, transformers.PretrainedConfig)]
    names = {name for part in parts for name, value in part.items() if isinstance(value, int) and value > 1}
    return not any("experts" in name for name in names) and _operations(model, one) == _operations(model, other)


def _operations(model: WarmModel, batch: Batch) -> list[Operation]:
    watching = _Watching()
    with torch.no_grad(), watching:
        model.task.losses(model.module, batch)
    return watching.seen
