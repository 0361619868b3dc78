"""Prompt tuning: the embeddings of virtual tokens before each text (Lester and others, arXiv 2104.08691)."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from confide.common.methods.method import LOADED_BY_PEFT, Method

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import Generator
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from confide.common.tasks.task import Task

_CUT = """


def cut(model, given, output):
    output.last_hidden_state = output.last_hidden_state[:, {tokens}:]
    return output


model.register_forward_hook(cut)"""


class PromptTuning(Method):
    """`[adapter]` with method "prompt-tuning": so many virtual tokens, trained in units of a usual embedding."""

    markers: ClassVar[tuple[str, ...]] = (".prompt_tuning.",)
    method: Literal["prompt-tuning"]
    tokens: int = Field(8, ge=1, le=256)

    @property
    def virtual_tokens(self) -> int:
        """The number of virtual tokens."""
        return self.tokens

    def described(self) -> str:
        """Return the method and its size."""
        return f"prompt tuning with {self.tokens} virtual tokens"

    def attach(self, base: "nn.Module", task: "Task") -> Any:
        """Return the base with a prompt before each text."""
        from confide.common.methods.virtual_tokens import Prompt, Prompted, require_prompts

        require_prompts(base, task, self.method)
        embed: Any = base.get_input_embeddings()  # type: ignore[operator]  # a transformers model
        return Prompted(base, "prompt_tuning", Prompt(embed, self.tokens, embed.weight.shape[1]))

    @classmethod
    def start_value(cls, name: str, shape: tuple[int, ...], stream: "Generator") -> "NDArray[np.float64]":
        """Return embeddings of the usual length."""
        return stream.standard_normal(shape)

    def peft_config(self, adapted: Any, task: "Task") -> Any:
        """Return PEFT's configuration."""
        return prompt_config(adapted, self.tokens, task)

    def to_file(self, adapted: Any, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return the embeddings of the virtual tokens under PEFT's name."""
        return {"prompt_embeddings": adapted.prompt.values()}

    def from_file(self, adapted: Any, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return the embeddings in units of a usual one."""
        import torch

        embeddings = torch.as_tensor(tensors["prompt_embeddings"])
        return {"encoder.prompt_tuning.tokens.vectors": embeddings / adapted.prompt.usual.cpu()}

    def program(self, task: "Task") -> str:
        """Return the lines that load the prompt, and cut its places off."""
        return prompt_program(self.tokens, task)


def prompt_program(tokens: int, task: "Task") -> str:
    """Return the lines of a card's program. PEFT gives states of virtual tokens too, and no head of ours reads them."""
    return LOADED_BY_PEFT + (_CUT.format(tokens=tokens) if task.own_head else "")


def prompt_config(adapted: Any, tokens: int, task: "Task") -> Any:
    """Return PEFT's configuration of a prompt: for P-tuning too, whose finished prompt is nothing else."""
    from peft import PromptTuningConfig

    config = adapted.config.get_text_config()
    return PromptTuningConfig(
        num_virtual_tokens=tokens,
        token_dim=adapted.get_base_model().get_input_embeddings().weight.shape[1],
        num_transformer_submodules=1,
        num_attention_heads=config.num_attention_heads,
        num_layers=config.num_hidden_layers,
        task_type=task.peft_type() or "FEATURE_EXTRACTION",
    )
