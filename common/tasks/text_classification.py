"""Text classification: one label for each text."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from confide.common.settings import Section
from confide.common.tasks.labels import find_label, shown

if TYPE_CHECKING:
    from torch import Tensor, nn


class TextClassification(Section):
    """Settings of `[task]` for kind "text-classification", and the task itself.

    The label set is public: it comes from here, never from the labels that occur in private data.
    """

    kind: Literal["text-classification"] = "text-classification"
    labels: tuple[str, ...] = Field(min_length=2)
    max_length: int = Field(128, ge=8, le=8192)
    pooling: Literal["mean", "native"] = "mean"

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError(f"labels={list(labels)} must be distinct")
        return labels

    @property
    def own_head(self) -> bool:
        """True: the head is ours, on the states of a base. False: it is the base model's own."""
        return self.pooling == "mean"

    @property
    def num_outputs(self) -> int:
        """One for each label."""
        return len(self.labels)

    def head_setting(self) -> str:
        """Return the setting that puts our head on any base."""
        return "task.pooling = 'mean'"

    def peft_type(self) -> str | None:
        """Return PEFT's name of the task, with which it trains and saves the base model's own head."""
        return None if self.own_head else "SEQ_CLS"

    def untrained_parts(self) -> frozenset[str]:
        """Return parts of a base's names that a loss does not pass: a mean does not pass the pooler."""
        return frozenset({"pooler"}) if self.own_head else frozenset()

    def head_parts(self) -> frozenset[str]:
        """Return parts of a base's names that are its own classification head, whatever it is called."""
        return frozenset({"classifier", "score"})

    def fields(self) -> tuple[str, ...]:
        """Return the columns of a record."""
        return ("text", "label")

    def check(self, record: Mapping[str, Any]) -> str | None:
        """Return the fault of a record, or None."""
        if not isinstance(record["text"], str | None):
            return f"text is {_kind(record['text'])}, must be a string; put it in quotes, or name another column"
        if record["text"] is None or not record["text"].strip():
            return "text is empty; remove the record or give it a text"
        if not record["text"].isprintable() and any("\ud800" <= sign <= "\udfff" for sign in record["text"]):
            return "text holds half a surrogate pair, which is no character; mend the record's encoding"
        return self._wrong_label(record["label"]) if find_label(record["label"], self.labels) is None else None

    def _wrong_label(self, label: Any) -> str:
        kind = " (a truth value: 'true' or 'True', never 1)" if isinstance(label, bool) else ""
        return f"label {shown(label)}{kind} is not one of {list(self.labels)}; mend it or add it to task.labels"

    def made_up(self, seed: int, number: int) -> dict[str, Any]:
        """Return a made-up record: ``max_length`` numbers as words, so that it fills every tokenizer's limit."""
        drawn = hashlib.shake_128(f"{seed} {number}".encode()).digest(self.max_length)
        return {"text": " ".join(map(str, drawn)), "label": self.labels[number % len(self.labels)]}

    def truth(self, record: Mapping[str, Any]) -> str:
        """Return the right answer of a record."""
        label = find_label(record["label"], self.labels)
        return str(record["label"]) if label is None else label

    def encode(self, record: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
        """Return token ids (cut to ``max_length``) and the label's index (0 for a record without a label)."""
        ids = tokenizer(record["text"], truncation=True, max_length=self.max_length)["input_ids"]
        label = find_label(record.get("label"), self.labels)
        return {"input_ids": ids, "label": 0 if label is None else self.labels.index(label)}

    def auto_class(self) -> Any:
        """Return the transformers class of the base model."""
        import transformers

        return transformers.AutoModel if self.own_head else transformers.AutoModelForSequenceClassification

    def auto_settings(self) -> dict[str, Any]:
        """Return settings of the base model's configuration."""
        names = dict(enumerate(self.labels))
        return {"id2label": names, "label2id": {name: index for index, name in names.items()}}

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train: the adapted encoder with mean pooling and a linear head, or with its own head."""
        if not self.own_head:
            return adapted
        from confide.common.tasks.heads import MeanPooledHead

        return MeanPooledHead(adapted, hidden_size, self.num_outputs)

    def logits(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return logits of shape ``(B, labels)``, float32."""
        output = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        logits: Tensor = output if self.own_head else output.logits
        return logits.float()

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return the cross-entropy of each example, shape ``(B,)``."""
        import torch

        return torch.nn.functional.cross_entropy(self.logits(module, batch), batch["label"], reduction="none")

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[str]:
        """Return the most likely label of each example."""
        return [self.labels[index] for index in self.logits(module, batch).argmax(dim=1).tolist()]

    def score(self, truths: Sequence[str], predictions: Sequence[str]) -> float:
        """Return the accuracy."""
        return sum(map(str.__eq__, truths, predictions)) / len(truths)


def _kind(value: Any) -> str:
    """Return in words the kind of a value that should be a text."""
    names = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")
