"""The kinds of task. A new kind: one file with a class like `TextClassification`, its name in `TaskSettings`, its test.

text_classification  one label for one text
heads                heads on the states of a base
labels               labels as files write them

A kind is a frozen pydantic model: its fields are the `[task]` section of run.toml, its methods are what training,
evaluation and export ask of a task (`Task` lists them). torch is imported inside methods, so that reading a
configuration stays instant.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from confide.common.tasks.text_classification import TextClassification

if TYPE_CHECKING:
    from torch import Tensor, nn

TaskSettings = TextClassification  # the kinds, joined by |


class Task(Protocol):
    """What a kind of task provides."""

    @property
    def max_length(self) -> int:
        """The most tokens of an example."""

    @property
    def own_head(self) -> bool:
        """The head is ours, on the states of a base; otherwise it is the base model's own."""

    @property
    def num_outputs(self) -> int:
        """Numbers that the head gives."""

    def head_setting(self) -> str:
        """Return the setting that puts our head on any base, for messages."""

    def peft_type(self) -> str | None:
        """Return PEFT's name of the task, with which it trains and saves the base model's own head; None without."""

    def untrained_parts(self) -> frozenset[str]:
        """Return parts of a base's names, between dots, that a loss does not pass."""

    def head_parts(self) -> frozenset[str]:
        """Return parts of a base's names, between dots, that are its own head."""

    def fields(self) -> tuple[str, ...]:
        """Names of the columns that a record of this task has."""

    def check(self, record: Mapping[str, Any]) -> str | None:
        """What is wrong with a record, in words that name value, rule and remedy; None when nothing is."""

    def encode(self, record: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
        """A checked record as an example: ``input_ids`` (list of int) and what `losses` needs."""

    def made_up(self, seed: int, number: int) -> dict[str, Any]:
        """A record that nobody wrote, the same for the same public numbers, and as long as the task allows."""

    def truth(self, record: Mapping[str, Any]) -> str:
        """The right answer of a record."""

    def auto_class(self) -> Any:
        """The transformers class of the base model."""

    def auto_settings(self) -> dict[str, Any]:
        """Settings of the base model's configuration."""

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """The module that is trained: the adapted encoder with the task's head."""

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """One loss per example, shape ``(B,)``; each depends on its own example only."""

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[str]:
        """One prediction per example."""

    def score(self, truths: Sequence[str], predictions: Sequence[str]) -> float:
        """The task's headline number in [0, 1] (accuracy, F1)."""
