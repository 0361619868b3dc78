"""Text classification: one label for each text."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:
    from torch import Tensor, nn


class TextClassification(BaseModel):
    """Settings of `[task]` for kind "text-classification", and the task itself.

    The label set is public: it comes from here, never from the labels that happen to be present in private data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

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

    def fields(self) -> tuple[str, ...]:
        """The columns of a record."""
        return ("text", "label")

    def check(self, record: Mapping[str, Any]) -> str | None:
        """What is wrong with a record, or None."""
        if not isinstance(record["text"], str) or not record["text"].strip():
            return "text is empty; remove the record or give it a text"
        if not record["text"].isprintable() and any("\ud800" <= sign <= "\udfff" for sign in record["text"]):
            return "text holds half a surrogate pair, which is no character; mend the record's encoding"
        if record["label"] not in self.labels:
            return f"label {record['label']!r} is not one of {list(self.labels)}; mend it or add it to task.labels"
        return None

    def made_up(self, seed: int, number: int) -> dict[str, Any]:
        """A record that nobody wrote: ``max_length`` numbers for words, so that it fills every tokenizer's limit."""
        drawn = hashlib.shake_128(f"{seed} {number}".encode()).digest(self.max_length)
        return {"text": " ".join(map(str, drawn)), "label": self.labels[number % len(self.labels)]}

    def truth(self, record: Mapping[str, Any]) -> str:
        """The right answer of a record."""
        return str(record["label"])

    def encode(self, record: Mapping[str, Any], tokenizer: Any) -> dict[str, Any]:
        """Token ids (cut to ``max_length``) and the label's index (0 where a record has no label, to predict)."""
        ids = tokenizer(record["text"], truncation=True, max_length=self.max_length)["input_ids"]
        label = record.get("label")
        return {"input_ids": ids, "label": self.labels.index(label) if label in self.labels else 0}

    def auto_class(self) -> Any:
        """The transformers class of the base model."""
        import transformers

        return transformers.AutoModel if self.pooling == "mean" else transformers.AutoModelForSequenceClassification

    def auto_settings(self) -> dict[str, Any]:
        """Settings of the base model's configuration."""
        names = dict(enumerate(self.labels))
        return {"id2label": names, "label2id": {name: index for index, name in names.items()}}

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """The trained module: mean pooling and a linear head on the adapted encoder, or the model's own head."""
        if self.pooling == "native":
            return adapted
        from confide.common.tasks.pooling import MeanPooledHead

        return MeanPooledHead(adapted, hidden_size, len(self.labels))

    def logits(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Logits of shape ``(B, labels)``, float32."""
        output = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        logits: Tensor = output if self.pooling == "mean" else output.logits
        return logits.float()

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Cross-entropy of each example, shape ``(B,)``."""
        import torch

        return torch.nn.functional.cross_entropy(self.logits(module, batch), batch["label"], reduction="none")

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[str]:
        """The most likely label of each example."""
        return [self.labels[index] for index in self.logits(module, batch).argmax(dim=1).tolist()]

    def score(self, truths: Sequence[str], predictions: Sequence[str]) -> float:
        """Accuracy."""
        return sum(map(str.__eq__, truths, predictions)) / len(truths)
