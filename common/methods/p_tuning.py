"""P-tuning: a prompt whose embeddings a small block makes of trained vectors (Liu and others, arXiv 2103.10385)."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from confide.common.methods.method import Method
from confide.common.methods.prompt_tuning import prompt_config, prompt_program

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from confide.common.tasks.task import Task


class PTuning(Method):
    """`[adapter]` with method "p-tuning": vectors of virtual tokens, and a block `width` wide that they all pass."""

    markers: ClassVar[tuple[str, ...]] = (".p_tuning.",)
    method: Literal["p-tuning"]
    tokens: int = Field(8, ge=1, le=256)
    width: int = Field(64, ge=1, le=1024)

    @property
    def virtual_tokens(self) -> int:
        """The number of virtual tokens."""
        return self.tokens

    def described(self) -> str:
        """Return the method and its size."""
        return f"P-tuning with {self.tokens} virtual tokens and a block {self.width} wide"

    def attach(self, base: "nn.Module", task: "Task") -> Any:
        """Return the base with a prompt before each text."""
        from confide.common.methods.blocks import Block
        from confide.common.methods.virtual_tokens import Prompt, Prompted, require_prompts

        require_prompts(base, task, self.method)
        embed: Any = base.get_input_embeddings()  # type: ignore[operator]  # a transformers model
        size = embed.weight.shape[1]
        return Prompted(base, "p_tuning", Prompt(embed, self.tokens, size, Block(size, self.width)))

    @classmethod
    def start_value(cls, name: str, shape: tuple[int, ...], stream: "Generator") -> "NDArray[np.float64]":
        """Return vectors of the usual length, and a block that does not change them yet."""
        import numpy as np

        if name.endswith("tokens.vectors"):
            return stream.standard_normal(shape)
        return stream.standard_normal(shape) / np.sqrt(shape[1]) if name.endswith("down.weight") else np.zeros(shape)

    def peft_config(self, adapted: Any, task: "Task") -> Any:
        """Return PEFT's configuration of the finished prompt."""
        return prompt_config(adapted, self.tokens, task)

    def to_file(self, adapted: Any, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return the finished prompt under PEFT's name, and what it was made of, which PEFT passes over."""
        return {"prompt_embeddings": adapted.prompt.values(), **tensors}

    def from_file(self, adapted: Any, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return what the prompt was made of."""
        return {name: value for name, value in tensors.items() if name != "prompt_embeddings"}

    def program(self, task: "Task") -> str:
        """Return the lines that load the prompt, and cut its places off."""
        return prompt_program(self.tokens, task)
