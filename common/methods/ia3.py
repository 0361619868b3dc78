"""IA3: vectors that scale keys, values and the states of feed-forward blocks (Liu and others, arXiv 2205.05638)."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from confide.common.errors import InputError
from confide.common.methods.method import LAYERS, Method, peft_named

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from confide.common.tasks.task import Task

# Keys and values in all families; of a projection that gives queries too, all is scaled, as in PEFT. DeBERTa's keys are
# missing: it projects positions with the same layer, and they belong to no example.
KEYS_AND_VALUES = {
    *("key", "value", "k_lin", "v_lin", "k", "v", "k_proj", "v_proj", "value_proj"),
    *("Wqkv", "c_attn", "query_key_value", "qkv_proj"),
}


class Ia3(Method):
    """`[adapter]` with method "ia3": one vector for each key, value and feed-forward layer, which starts at 1."""

    markers: ClassVar[tuple[str, ...]] = (".ia3.",)
    method: Literal["ia3"]
    layers: str = Field("all", pattern=LAYERS)

    def described(self) -> str:
        """Return the method and its layers."""
        return f"IA3 on keys, values and feed-forward blocks; layers: {self.layers}"

    def attach(self, base: "nn.Module", task: "Task") -> Any:
        """Return the base with a vector behind each key and value, and one before each feed-forward block's end."""
        from confide.common.methods.inserted import (
            LINEAR,
            Before,
            Behind,
            Extended,
            feeds_forward,
            open_parts,
            put,
            sizes_of,
        )
        from confide.common.privacy.layers import Scale

        config: Any = base.config
        hidden, found = config.get_text_config().hidden_size, 0
        for name, part in open_parts(base, self.layers, task):
            if isinstance(part, LINEAR) and name.rpartition(".")[2] in KEYS_AND_VALUES:
                put(base, name, Behind(part, "ia3", Scale(sizes_of(part)[0])))
            elif feeds_forward(name, part, hidden):
                put(base, name, Before(part, "ia3", Scale(sizes_of(part)[1])))
            else:
                continue
            found += 1
        if not found:
            raise InputError(
                f"adapter.method = 'ia3' finds no keys, values or feed-forward blocks in models of type "
                f"{config.model_type!r}; use method = 'lora' with targets"
            )
        return Extended(base)

    @classmethod
    def start_value(cls, name: str, shape: tuple[int, ...], stream: "Generator") -> "NDArray[np.float64]":
        """Return ones: the adapted base begins as the base is."""
        import numpy as np

        return np.ones(shape)

    def peft_config(self, adapted: Any, task: "Task") -> Any:
        """Return PEFT's configuration, with the full name of every layer."""
        from peft import IA3Config
        from transformers.pytorch_utils import Conv1D

        from confide.common.methods.inserted import Before, changed_parts

        parts = changed_parts(adapted.get_base_model())
        return IA3Config(
            fan_in_fan_out=any(isinstance(part.layer, Conv1D) for _, part in parts),
            target_modules=[name for name, _ in parts],
            feedforward_modules=[name for name, part in parts if isinstance(part, Before)],
            modules_to_save=sorted(task.head_parts()) if task.native_head else None,
            task_type=task.peft_type(),
        )

    def to_file(self, adapted: Any, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return the vectors under PEFT's names: as columns, or as rows before a feed-forward block's end."""
        from confide.common.methods.inserted import Before, changed_parts

        rows = {
            f"{name}.ia3.scale" for name, part in changed_parts(adapted.get_base_model()) if isinstance(part, Before)
        }
        return peft_named(
            {
                name.replace(".ia3.scale", ".ia3_l"): value
                if ".ia3." not in name
                else value.unsqueeze(0 if name in rows else 1)
                for name, value in tensors.items()
            }
        )

    def from_file(self, adapted: Any, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return the vectors of a state."""
        return {
            name.replace(".ia3_l", ".ia3.scale"): value.flatten() if name.endswith(".ia3_l") else value
            for name, value in tensors.items()
        }

    def merged(self, adapted: Any) -> Any:
        """Return the base with its weights scaled."""
        from confide.common.methods.inserted import Before, changed_parts, put, scaled

        base = adapted.get_base_model()
        for name, part in changed_parts(base):
            scaled(part.layer, part.added.scale.data, inputs=isinstance(part, Before))
            put(base, name, part.layer)
        return base
