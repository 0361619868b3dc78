"""Prefix tuning: virtual keys and values before those of each text, in every layer (Li and Liang, arXiv 2101.00190)."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from confide.common.errors import InputError
from confide.common.methods.method import Method

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from confide.common.tasks.task import Task

_START = 0.1  # of keys and values, which are about 1 long in each number


class PrefixTuning(Method):
    """`[adapter]` with method "prefix-tuning": so many virtual keys and values in each layer."""

    markers: ClassVar[tuple[str, ...]] = (".prefix_tuning.",)
    method: Literal["prefix-tuning"]
    tokens: int = Field(8, ge=1, le=256)

    @property
    def virtual_tokens(self) -> int:
        """The number of virtual tokens."""
        return self.tokens

    def described(self) -> str:
        """Return the method and its size."""
        return f"prefix tuning with {self.tokens} virtual keys and values in each layer"

    def attach(self, base: "nn.Module", task: "Task") -> Any:
        """Return the base with a prefix in each layer; `InputError` for a family whose layers take no past keys."""
        import inspect

        from confide.common.methods.virtual_tokens import Prefixed, require_prompts

        require_prompts(base, task, self.method)
        trunk: Any = base
        if "past_key_values" not in inspect.signature(trunk.base_model.forward).parameters:
            raise InputError(
                f"adapter.method = 'prefix-tuning': models of type {trunk.config.model_type!r} take no keys and values "
                "from outside; use method = 'prompt-tuning' or 'lora'"
            )
        return Prefixed(base, "prefix_tuning", self.tokens)

    @classmethod
    def start_value(cls, name: str, shape: tuple[int, ...], stream: "Generator") -> "NDArray[np.float64]":
        """Return small keys and values."""
        return _START * stream.standard_normal(shape)

    def peft_config(self, adapted: Any, task: "Task") -> Any:
        """Return PEFT's configuration."""
        from peft import PrefixTuningConfig

        config = adapted.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        return PrefixTuningConfig(
            num_virtual_tokens=self.tokens,
            token_dim=adapted.tokens.vectors.shape[1] // (2 * config.num_hidden_layers),
            num_transformer_submodules=1,
            num_attention_heads=heads,
            num_layers=config.num_hidden_layers,
            encoder_hidden_size=config.hidden_size,
            task_type=task.peft_type() or "FEATURE_EXTRACTION",
        )

    def to_file(self, adapted: Any, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return keys and values under PEFT's name."""
        return {"prompt_embeddings": adapted.tokens.vectors.data}

    def from_file(self, adapted: Any, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return keys and values under the name of a state."""
        return {"encoder.prefix_tuning.vectors": tensors["prompt_embeddings"]}
