"""Multi-label classification: any number of labels for each text, or none."""

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from confide.common.forms.entities import plain, rates
from confide.common.forms.labels import distinct, find_label, label_problem
from confide.common.forms.texts import made_up_texts, text_problem
from confide.common.forms.windows import first_tokens
from confide.common.tasks.task import OUTPUT, POOLED, Example, Record, Task, model_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn


class MultiLabelClassification(Task):
    """Settings of `[task]` for kind "multi-label-classification", and the task itself.

    The label set is public: it comes from here, never from the labels that occur in private data.
    """

    headline: ClassVar[str] = "f1"
    kind: Literal["multi-label-classification"]
    labels: tuple[str, ...] = Field(min_length=2)

    _distinct = field_validator("labels")(distinct)

    @property
    def num_outputs(self) -> int:
        """One for each label."""
        return len(self.labels)

    def inputs(self) -> tuple[str, ...]:
        """Return the text's column."""
        return ("text",)

    def answers(self) -> tuple[str, ...]:
        """Return the column of the labels."""
        return ("labels",)

    def check(self, record: Record) -> str | None:
        """Return the fault of a record, or None."""
        given = plain(record["labels"])
        if problem := text_problem(record["text"]):
            return problem
        if not isinstance(given, list):
            return f"labels is {given!r:.60}, must be a list of labels, [] where the text has none"
        return next((problem for label in given if (problem := label_problem(label, self.labels))), None)

    def translate(self, record: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        """Return a record with the study's labels for its own codes; codes without a name stay as the file has them."""
        given = plain(record.get("labels"))
        if not isinstance(given, list):
            return record
        codes = [find_label(label, names) for label in given]
        named = [label if code is None else names[code] for label, code in zip(given, codes, strict=True)]
        return {**record, "labels": named}

    def made_up(self, seed: int, number: int, words: int | None = None) -> dict[str, Any]:
        """Return a made-up text with no label, one or two."""
        labels = [self.labels[(number + place) % len(self.labels)] for place in range(number % 3)]
        return {**made_up_texts(self.inputs(), seed, number, words or self.max_length), "labels": labels}

    def truth(self, record: Record) -> list[str]:
        """Return the labels of a record, in the order of the public list."""
        given = plain(record.get("labels")) or []
        found = {find_label(label, self.labels) for label in given}
        return [label for label in self.labels if label in found]

    def examples(self, record: Record, tokenizer: Any) -> list[Example]:
        """Return token ids (cut to ``max_length``), and for each label by its number 1 if the text has it, else 0."""
        found = self.truth(record)
        given = {f"label {number}": int(label in found) for number, label in enumerate(self.labels)}
        return [{**first_tokens([record["text"]], tokenizer, self.max_length), **given}]

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train: the adapted encoder with mean pooling and a linear head."""
        from confide.common.tasks.heads import MeanPooledHead

        return MeanPooledHead(adapted, hidden_size, self.num_outputs)

    def logits(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return a logit of each label, shape ``(B, labels)``, float32."""
        logits: Tensor = module(**model_inputs(batch))
        return logits.float()

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return the mean over the labels of binary cross-entropies, shape ``(B,)``."""
        import torch

        logits = self.logits(module, batch)
        # As classes of logits 0 and x: a CPU computes a sigmoid in vectors, and the numbers beside them otherwise.
        both = torch.stack([torch.zeros_like(logits), logits], dim=2).flatten(0, 1)
        given = torch.stack([batch[f"label {number}"] for number in range(len(self.labels))], dim=1)
        each = torch.nn.functional.cross_entropy(both, given.flatten(), reduction="none")
        return each.view_as(logits).mean(dim=1)

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[list[str]]:
        """Return the labels of each example that are likelier than not."""
        likely = (self.logits(module, batch) > 0).tolist()
        return [[label for label, found in zip(self.labels, row, strict=True) if found] for row in likely]

    def join(self, record: Record, outputs: list[list[str]]) -> list[str]:
        """Return the labels of a record; none for a text without any token."""
        return outputs[0] if outputs else []

    def program(self) -> str:
        """Return the program's lines: they print the labels that are likelier than not, as JSON."""
        return (
            f"import json\n\n{OUTPUT.format(max_length=self.max_length)}{POOLED}"
            "likely = ((pooled @ head['weight'].T + head['bias'])[0] > 0).tolist()\n"
            f"print(json.dumps([label for label, found in zip({list(self.labels)!r}, likely) if found]))"
        )

    def metrics(self, truths: Sequence[list[str]], predictions: Sequence[list[str]]) -> dict[str, float]:
        """Return precision, recall and F1 over all labels together, for each label, and as means over the labels.

        In the weighted mean a label counts as often as it is right.
        """
        pairs = [(set(truth), set(found)) for truth, found in zip(truths, predictions, strict=True)]
        result = rates("", [(truth & found, truth, found) for truth, found in pairs])
        for label in self.labels:
            own = [(truth & {label}, found & {label}) for truth, found in pairs]
            result |= rates(f"/{label}", [(truth & found, truth, found) for truth, found in own])
        counts = [sum(label in truth for truth, _ in pairs) for label in self.labels]
        for part in ("precision", "recall", "f1"):
            each = [result[f"{part}/{label}"] for label in self.labels]
            result[f"{part}/macro mean"] = sum(each) / len(each)
            result[f"{part}/weighted mean"] = sum(map(operator.mul, each, counts)) / (sum(counts) or 1)
        return result

    def rightness(self, truth: list[str], prediction: list[str]) -> float:
        """Return F1 of the labels of one record; 1 where it has none and none is found."""
        common = len(set(truth) & set(prediction))
        return 2 * common / (len(truth) + len(prediction)) if truth or prediction else 1.0
