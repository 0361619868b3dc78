"""Whether the operations of a forward pass, and the sizes that they are given, follow from the shape of a batch alone.

A mixture of experts sends each token to some experts, so the other rows of a batch decide with how many rows an expert
is multiplied, and which kernel does it. No trial of shapes can find that: the sizes follow from the numbers.
"""

from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from confide.common.batches import Batch
from confide.common.warm_model import WarmModel

Operation = tuple[str, tuple[tuple[int, ...], ...]]


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each operation, and the sizes of its tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Operation] = []

    def __torch_dispatch__(self, operation: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        sizes = (tuple(leaf.shape) for leaf in tree_leaves((given, named)) if isinstance(leaf, Tensor))
        self.seen.append((str(operation), tuple(sizes)))
        return operation(*given, **(named or {}))


def follow_from_shape(model: WarmModel, one: Batch, other: Batch) -> bool:
    """Whether two batches of one shape go through the same operations on the same sizes, and through no experts.

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
