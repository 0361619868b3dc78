"""The kinds of task. A new kind: one file with a class like `TextClassification`, its name in `TaskSettings`, its test.

text_classification  one label for one text
heads                heads on the states of a base
labels               labels as files write them

A kind is a frozen pydantic model. Its fields are the `[task]` section of run.toml; training, evaluation and export call
its methods (`Task` lists them). torch is imported inside methods, so that reading a configuration stays instant.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from confide.common.tasks.text_classification import TextClassification

if TYPE_CHECKING:
    from torch import Tensor, nn

TaskSettings = TextClassification  # the kinds, joined by |


class Task(Protocol):
    """The methods that a kind of task provides."""

    @property
    def max_length(self) -> int:
        """The most tokens of an example."""

    @property
    def own_head(self) -> bool:
        """True: the head is ours, on the states of a base. False: it is the base model's own."""

    @property
    def num_outputs(self) -> int:
        """The number of values that the head gives."""

    def head_setting(self) -> str:
        """Return the setting that puts our head on any base, for messages."""

    def peft_type(self) -> str | None:
        """Return PEFT's name of the task, with which it trains and saves the base model's own head; None without."""

    def untrained_parts(self) -> frozenset[str]:
        """Return parts of a base's names, between dots, that a loss does not pass."""

    def head_parts(self) -> frozenset[str]:
        """Return parts of a base's names, between dots, that are its own head."""

    def fields(self) -> tuple[str, ...]:
        """Return the names of the columns that a record of this task has."""

    def check(self, record: Mapping[str, Any]) -> str | None:
        """Return the fault of a record, in words that name value, rule and remedy; None for a good record."""

    def encode(self, record: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
        """Return a checked record as an example: ``input_ids`` (list of int) and the values that `losses` needs."""

    def made_up(self, seed: int, number: int) -> dict[str, Any]:
        """Return a made-up record: the same for the same public numbers, and as long as the task allows."""

    def truth(self, record: Mapping[str, Any]) -> str:
        """Return the right answer of a record."""

    def auto_class(self) -> Any:
        """Return the transformers class of the base model."""

    def auto_settings(self) -> dict[str, Any]:
        """Return settings of the base model's configuration."""

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train: the adapted encoder with the task's head."""

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return one loss per example, shape ``(B,)``; each depends on its own example only."""

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[str]:
        """Return one prediction per example."""

    def score(self, truths: Sequence[str], predictions: Sequence[str]) -> float:
        """Return the task's headline number in [0, 1] (accuracy, F1)."""
