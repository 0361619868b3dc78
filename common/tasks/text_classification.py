"""Text classification: one label for each text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from confide.common.forms.labels import (
    distinct,
    index_of,
    label_of,
    label_problem,
    rates_of_labels,
    spellings,
    translated,
)
from confide.common.forms.texts import made_up_texts, texts_problem
from confide.common.forms.windows import first_tokens
from confide.common.tasks.task import OUTPUT, PAIR_OUTPUT, POOLED, Example, Record, Task, model_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn


class TextClassification(Task):
    """Settings of `[task]` for kind "text-classification", and the task itself.

    The label set is public: it comes from here, never from the labels that occur in private data.
    """

    headline: ClassVar[str] = "accuracy"
    kind: Literal["text-classification"] = "text-classification"
    labels: tuple[str, ...] = Field(min_length=2)
    pooling: Literal["mean", "native"] = "mean"
    # Left out of a locked run where it is false: older runs, which do not name it, keep their hash.
    pair: bool = Field(default=False, exclude_if=lambda value: not value)

    _distinct = field_validator("labels")(distinct)

    @property
    def own_head(self) -> bool:
        """True: the head is ours, on the states of a base."""
        return self.pooling == "mean"

    @property
    def native_head(self) -> bool:
        """True: the base model's own head is trained."""
        return self.pooling == "native"

    @property
    def num_outputs(self) -> int:
        """One for each label."""
        return len(self.labels)

    def head_setting(self) -> str:
        """Return the setting that puts our head on any base."""
        return "task.pooling = 'mean'"

    def base_wanted(self) -> str:
        """Return the sort of base that the kind needs."""
        return super().base_wanted() if self.own_head else "one for which transformers has a head of classes"

    def peft_type(self) -> str | None:
        """Return PEFT's name of the task, with which it saves the base model's own head."""
        return None if self.own_head else "SEQ_CLS"

    def untrained_parts(self) -> frozenset[str]:
        """Return parts of a base's names that a loss does not pass: a mean does not pass the pooler."""
        return frozenset({"pooler"}) if self.own_head else frozenset()

    def head_parts(self) -> frozenset[str]:
        """Return parts of a base's names that are its own classification head, whatever it is called."""
        return frozenset({"classifier", "score"})

    def inputs(self) -> tuple[str, ...]:
        """Return the text's column, or those of two texts."""
        return ("text", "text_pair") if self.pair else ("text",)

    def answers(self) -> tuple[str, ...]:
        """Return the label's column."""
        return ("label",)

    def check(self, record: Record) -> str | None:
        """Return the fault of a record, or None."""
        return texts_problem(record, self.inputs()) or label_problem(record["label"], self.labels)

    def translate(self, record: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        """Return a record with the study's label for its own code; a code without a name stays as the file has it."""
        return translated(record, names)

    def stratum(self, record: Record) -> str:
        """Return the label."""
        return next(iter(spellings(record.get("label"))), "")

    def made_up(self, seed: int, number: int, words: int | None = None) -> dict[str, Any]:
        """Return a made-up text and a label."""
        texts = made_up_texts(self.inputs(), seed, number, words or self.max_length)
        return {**texts, "label": self.labels[number % len(self.labels)]}

    def truth(self, record: Record) -> str:
        """Return the label of a record."""
        return label_of(record["label"], self.labels)

    def examples(self, record: Record, tokenizer: Any) -> list[Example]:
        """Return token ids (cut to ``max_length``) and the label's index (0 for a record without a label)."""
        tokens = first_tokens([record[name] for name in self.inputs()], tokenizer, self.max_length)
        return [{**tokens, "label": index_of(record.get("label"), self.labels)}]

    def auto_class(self) -> Any:
        """Return the transformers class of the base model."""
        import transformers

        return transformers.AutoModel if self.own_head else transformers.AutoModelForSequenceClassification

    def auto_settings(self) -> dict[str, Any]:
        """Return settings of the base model's configuration."""
        names = dict(enumerate(self.labels))
        return {"id2label": names, "label2id": {name: index for index, name in names.items()}}

    def columns(self) -> Mapping[str, int]:
        """Return the column of two texts that says to which of them each token belongs."""
        return {"token_type_ids": 0} if self.pair else {}

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train: the adapted encoder with mean pooling and a linear head, or with its own head."""
        from confide.common.tasks.heads import MeanPooledHead, NativeHead

        return NativeHead(adapted) if self.native_head else MeanPooledHead(adapted, hidden_size, self.num_outputs)

    def logits(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return logits of shape ``(B, labels)``, float32."""
        logits: Tensor = module(**model_inputs(batch))
        return logits.float()

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return the cross-entropy of each example, shape ``(B,)``."""
        import torch

        return torch.nn.functional.cross_entropy(self.logits(module, batch), batch["label"], reduction="none")

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[str]:
        """Return the most likely label of each example."""
        return [self.labels[index] for index in self.logits(module, batch).argmax(dim=1).tolist()]

    def program(self) -> str:
        """Return the program's lines: they print the likeliest label."""
        output = (PAIR_OUTPUT if self.pair else OUTPUT).format(max_length=self.max_length)
        pooled = POOLED + "logits = pooled @ head['weight'].T + head['bias']"
        logits = pooled if self.own_head else "logits = output.logits"
        return f"{output}{logits}\nprint({list(self.labels)!r}[int(logits.argmax())])"

    def score(self, truths: Sequence[str], predictions: Sequence[str]) -> float:
        """Return the accuracy; a table for each of a thousand institutions would take seconds."""
        return sum(map(str.__eq__, truths, predictions)) / len(truths)

    def metrics(self, truths: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
        """Return accuracy, and precision, recall and F1 of each label, of their mean and of their weighted mean."""
        from sklearn.metrics import precision_recall_fscore_support

        metrics = {"accuracy": self.score(truths, predictions)} | rates_of_labels(truths, predictions, self.labels)
        for mean in ("macro", "weighted"):
            rates = precision_recall_fscore_support(
                truths, predictions, labels=list(self.labels), average=mean, zero_division=0
            )
            parts = zip(("precision", "recall", "f1"), rates[:3], strict=True)
            metrics |= {f"{part}/{mean} mean": float(rate) for part, rate in parts}
        return metrics
