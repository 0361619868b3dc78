"""A device that this machine does not have: a CPU's numbers under another device's name, as strict as a real one.

PyTorch's "lazy" device is known to the dispatcher and has no kernels here. While `second_device` is on, operations come
to it before they come to any kernel: it computes them on the CPU, and refuses what a GPU refuses, which is tensors of
two devices in one operation, and NumPy without ``.cpu()``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

SECOND = torch.device("lazy:0")
_CROSSING = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)  # these read one device and write another


class _There(torch.Tensor):
    """A tensor on the second device; ``here`` holds its numbers."""

    here: torch.Tensor

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> "_There":
        with torch.inference_mode(False):  # a view of an ordinary tensor is one, in whatever mode it is taken
            made = torch.Tensor._make_wrapper_subclass(
                cls, here.size(), here.stride(), here.storage_offset(), dtype=here.dtype, device=SECOND
            )
        made.here = here
        return made

    def tolist(self) -> Any:
        """Python numbers; PyTorch gives them of no subclass, and a GPU does."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, operation: Any, *rest: Any) -> Any:
        raise RuntimeError(f"{operation}: the second device is off")


class _SecondDevice(TorchDispatchMode):
    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        named = named or {}
        if operation.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            with self:  # in inference mode such an operation has not been taken apart
                return operation.decompose(*arguments, **named)
        given = [value for value in tree_leaves((arguments, named)) if isinstance(value, torch.Tensor)]
        there = any(isinstance(value, _There) for value in given)
        mixed = there and any(value.ndim and not isinstance(value, _There) for value in given)  # numbers may travel
        if mixed and operation not in _CROSSING:
            raise RuntimeError(f"{operation}: expected all tensors on one device, found two")
        target = named.get("device")
        if target == SECOND:
            named = {**named, "device": torch.device("cpu")}
        result = operation(*tree_map_only(_There, _here, arguments), **tree_map_only(_There, _here, named))
        if operation._schema.is_mutable:  # it gives back what it wrote to
            return arguments[0]
        return tree_map_only(torch.Tensor, _There, result) if target == SECOND or (there and not target) else result


def _here(tensor: _There) -> torch.Tensor:
    return tensor.here


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Within this, the device exists."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor() fills the other device behind the dispatcher's back
    try:
        with _SecondDevice():
            yield SECOND
    finally:
        torch._C._set_only_lift_cpu_tensors(before)
