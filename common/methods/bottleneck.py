"""Bottleneck adapters behind feed-forward blocks (Pfeiffer and others, arXiv 2005.00247)."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from confide.common.errors import InputError
from confide.common.methods.method import LAYERS, Method

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import nn

    from confide.common.tasks.task import Task

_PROGRAM = """parts = load_file(f"{adapter}/adapter_model.safetensors")


def added(layer):
    names = ("down.weight", "down.bias", "up.weight", "up.bias")
    down, down_bias, up, up_bias = (parts.pop(f"{layer}.bottleneck.{name}") for name in names)
    return lambda _, given, states: states + torch.relu(states @ down.T + down_bias) @ up.T + up_bias


for layer in [name.partition(".bottleneck.")[0] for name in parts if name.endswith(".down.bias")]:
    model.get_submodule(layer).register_forward_hook(added(layer))
model.load_state_dict(parts, strict=False)
model = model.eval()"""


class Bottleneck(Method):
    """`[adapter]` with method "bottleneck": a small block of two layers, `width` wide, behind each feed-forward block.

    Its non-linearity is a ReLU: a CPU computes others in vectors, and what fills none by other code, so that a row's
    last bits would depend on its place.
    """

    markers: ClassVar[tuple[str, ...]] = (".bottleneck.",)
    method: Literal["bottleneck"]
    width: int = Field(16, ge=1, le=1024)
    layers: str = Field("all", pattern=LAYERS)

    def described(self) -> str:
        """Return the method, its width and its layers."""
        return f"bottleneck adapters {self.width} wide behind feed-forward blocks; layers: {self.layers}"

    def attach(self, base: "nn.Module", task: "Task") -> Any:
        """Return the base with a block behind each feed-forward block."""
        from confide.common.methods.blocks import Block
        from confide.common.methods.inserted import Behind, Extended, feeds_forward, open_parts, put

        config: Any = base.config
        hidden, found = config.get_text_config().hidden_size, 0
        for name, part in open_parts(base, self.layers, task):
            if feeds_forward(name, part, hidden):
                put(base, name, Behind(part, "bottleneck", Block(hidden, self.width)))
                found += 1
        if not found:
            raise InputError(
                f"adapter.method = 'bottleneck' finds no feed-forward blocks of linear layers in models of type "
                f"{config.model_type!r}; use method = 'lora'"
            )
        return Extended(base)

    @classmethod
    def start_value(cls, name: str, shape: tuple[int, ...], stream: "Generator") -> "NDArray[np.float64]":
        """Return a first layer that keeps lengths, and zeros elsewhere: the adapted base begins as the base is."""
        import numpy as np

        if not name.endswith(".down.weight"):
            return np.zeros(shape)
        weight: NDArray[np.float64] = stream.standard_normal(shape) / np.sqrt(shape[1])
        return weight

    def program(self, task: "Task") -> str:
        """Return lines that add the blocks by hooks, and load a head of the base."""
        return _PROGRAM
