"""LayerNorm tuning: the weights of a base's norms alone are trained (Zhao and others, arXiv 2312.11420)."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from confide.common.methods.method import LAYERS, Method, peft_named

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from confide.common.tasks.task import Task


class Norms(Method):
    """`[adapter]` with method "norms": every LayerNorm and RMSNorm has its weights, and its bias if any, trained.

    A run trains a factor on the norm's output, which starts at 1, and what is added to it, which starts at 0: the same
    functions as with other weights. The exported file holds the weights themselves, as PEFT's LN tuning has them.
    """

    markers: ClassVar[tuple[str, ...]] = (".norms.",)
    method: Literal["norms"]
    layers: str = Field("all", pattern=LAYERS)

    def described(self) -> str:
        """Return the method and its layers."""
        return f"weights of LayerNorm and RMSNorm; layers: {self.layers}"

    def attach(self, base: "nn.Module", task: "Task") -> Any:
        """Return the base with a scale behind each norm, and a shift where the norm has a bias."""
        from torch import nn

        from confide.common.methods.inserted import Behind, Extended, open_parts, put
        from confide.common.privacy.layers import Scale, Shift

        for name, part in open_parts(base, self.layers, task):
            if is_norm(part):
                norm: Any = part
                shifts = [Shift(len(norm.weight))] if getattr(norm, "bias", None) is not None else []
                put(base, name, Behind(norm, "norms", nn.Sequential(Scale(len(norm.weight)), *shifts)))
        return Extended(base)

    @classmethod
    def start_value(cls, name: str, shape: tuple[int, ...], stream: "Generator") -> "NDArray[np.float64]":
        """Return factors of 1 and shifts of 0: the adapted base begins as the base is."""
        import numpy as np

        return np.ones(shape) if name.endswith(".scale") else np.zeros(shape)

    def peft_config(self, adapted: Any, task: "Task") -> Any:
        """Return PEFT's configuration, with the full name of every norm."""
        from peft import LNTuningConfig

        from confide.common.methods.inserted import changed_parts

        return LNTuningConfig(
            target_modules=[name for name, _ in changed_parts(adapted.get_base_model())],
            modules_to_save=sorted(task.head_parts()) if task.native_head else None,
            task_type=task.peft_type(),
        )

    def to_file(self, adapted: Any, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return the weights of each norm under PEFT's names."""
        found = dict(tensors)
        for name, norm in _norms(adapted):
            scale, shift = found.pop(f"{name}.norms.0.scale"), found.pop(f"{name}.norms.1.shift", None)
            zero = zero_of(norm)
            found[f"{name}.ln_tuning_layers.weight"] = (norm.weight.data.float() + zero) * scale - zero
            if shift is not None:
                found[f"{name}.ln_tuning_layers.bias"] = norm.bias.data.float() * scale + shift
        return peft_named(found)

    def from_file(self, adapted: Any, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return factor and shift of each norm; where a base's weight is 0 the factor does not matter, and is 1."""
        import torch

        found = dict(tensors)
        for name, norm in _norms(adapted):
            weight, bias = (found.pop(f"{name}.ln_tuning_layers.{part}", None) for part in ("weight", "bias"))
            if weight is None:
                continue
            own = norm.weight.data.float() + zero_of(norm)
            scale = torch.where(own == 0, torch.ones_like(own), (torch.as_tensor(weight) + zero_of(norm)) / own)
            found[f"{name}.norms.0.scale"] = scale
            if bias is not None:
                found[f"{name}.norms.1.shift"] = torch.as_tensor(bias) - norm.bias.data.float() * scale
        return found

    def merged(self, adapted: Any) -> Any:
        """Return the base with the weights of its norms changed."""
        from confide.common.methods.inserted import changed_parts, put

        base = adapted.get_base_model()
        for name, part in changed_parts(base):
            norm: Any = part.layer
            scale = part.added[0].scale.data
            zero = zero_of(norm)
            norm.weight.data = (norm.weight.data + zero) * scale - zero
            if len(part.added) > 1:
                norm.bias.data = norm.bias.data * scale + part.added[1].shift.data
            put(base, name, norm)
        return base


def is_norm(part: Any) -> bool:
    """Return whether a part of a base is a LayerNorm or RMSNorm with weights, of whatever family."""
    weight = getattr(part, "weight", None)
    return "norm" in type(part).__name__.lower() and weight is not None and weight.ndim == 1


def zero_of(norm: Any) -> float:
    """Return what a norm adds to its weight before it multiplies: 1 in Gemma, whose weights lie around 0, else 0.

    Found by trial: a norm of this class with weights of 0 gives zeros, or it adds something.
    """
    import copy

    import torch

    tried = copy.deepcopy(norm).to_empty(device="cpu").float() if norm.weight.is_meta else copy.deepcopy(norm).float()
    for parameter in tried.parameters():
        parameter.data.zero_()
    states = torch.linspace(-1, 1, len(tried.weight), device=tried.weight.device)
    return 1.0 if tried(states.reshape(1, 1, -1)).any() else 0.0


def _norms(adapted: Any) -> list[tuple[str, Any]]:
    from confide.common.methods.inserted import changed_parts

    return [(name, part.layer) for name, part in changed_parts(adapted.get_base_model())]
