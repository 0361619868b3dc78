"""BitFit: the biases of a base alone are trained (Ben Zaken and others, arXiv 2106.10199)."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from confide.common.errors import InputError
from confide.common.methods.method import LAYERS, LOADED_BY_NAME, Method

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from confide.common.tasks.task import Task


class BitFit(Method):
    """`[adapter]` with method "bitfit": every bias of linear layers and norms may move; nothing else does.

    A run trains the change of each bias, which starts at 0. The exported file holds the biases themselves.
    """

    markers: ClassVar[tuple[str, ...]] = (".bitfit.",)
    method: Literal["bitfit"]
    layers: str = Field("all", pattern=LAYERS)

    def described(self) -> str:
        """Return the method and its layers."""
        return f"BitFit: biases of linear layers and norms; layers: {self.layers}"

    def attach(self, base: "nn.Module", task: "Task") -> Any:
        """Return the base with a shift behind each layer that has a bias."""
        from confide.common.methods.inserted import LINEAR, Behind, Extended, open_parts, put
        from confide.common.methods.norms import is_norm
        from confide.common.privacy.layers import Shift

        found = 0
        for name, part in open_parts(base, self.layers, task):
            bias: Any = getattr(part, "bias", None)
            if bias is not None and (isinstance(part, LINEAR) or is_norm(part)):
                put(base, name, Behind(part, "bitfit", Shift(len(bias))))
                found += 1
        if not found:
            config: Any = base.config
            raise InputError(
                f"adapter.method = 'bitfit': models of type {config.model_type!r} have no biases; use method = 'norms' "
                "or 'lora'"
            )
        return Extended(base)

    @classmethod
    def start_value(cls, name: str, shape: tuple[int, ...], stream: "Generator") -> "NDArray[np.float64]":
        """Return zeros: the adapted base begins as the base is."""
        import numpy as np

        return np.zeros(shape)

    def to_file(self, adapted: Any, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return each bias with its change, under the base's own name of it."""
        base = _biases(adapted)
        return {
            name.replace(".bitfit.shift", ".bias"): base[name] + value if name in base else value
            for name, value in tensors.items()
        }

    def from_file(self, adapted: Any, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return the change of each bias."""
        ours = {name.replace(".bitfit.shift", ".bias"): (name, bias) for name, bias in _biases(adapted).items()}
        found = {name: (*ours.get(name, (name, None)), value) for name, value in tensors.items()}
        return {name: value if bias is None else value - bias for name, bias, value in found.values()}

    def program(self, task: "Task") -> str:
        """Return the line that loads the biases, and a head of the base."""
        return LOADED_BY_NAME

    def merged(self, adapted: Any) -> Any:
        """Return the base with its biases changed."""
        from confide.common.methods.inserted import changed_parts, put

        base = adapted.get_base_model()
        for name, part in changed_parts(base):
            part.bias.data += part.added.shift.data
            put(base, name, part.layer)
        return base


def _biases(adapted: Any) -> "dict[str, Tensor]":
    """Return the base's own biases in float32, by the name that the change of each has in a state."""
    from confide.common.methods.inserted import changed_parts

    parts = changed_parts(adapted.get_base_model())
    return {f"{name}.bitfit.shift": part.bias.data.float() for name, part in parts}
