"""Relation classification: the relation between two marked names of a text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from confide.common.errors import InputError
from confide.common.forms.labels import (
    distinct,
    index_of,
    label_of,
    label_problem,
    rates_of_labels,
    spellings,
    translated,
)
from confide.common.forms.marks import MARK, MARKS, marks_problem, part_of, signed
from confide.common.forms.texts import made_up_words
from confide.common.forms.windows import require_fast, window_start
from confide.common.tasks.task import Example, Record, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

_PARTS = 3  # of a text: first name, second name, and what stands between them


class RelationClassification(Task):
    """Settings of `[task]` for kind "relation-classification", and the task itself.

    A record has a ``text`` with the names <e1>...</e1> and <e2>...</e2>, and a ``label``. The model reads "$" on both
    sides of the first name and "#" on both sides of the second: words that its vocabulary has. Trained marks of our
    own would need as much noise as a head.
    """

    headline: ClassVar[str] = "f1"
    kind: Literal["relation-classification"]
    labels: tuple[str, ...] = Field(min_length=2)
    other: str | None = None

    _distinct = field_validator("labels")(distinct)

    @model_validator(mode="after")
    def _known(self) -> "RelationClassification":
        if self.other is not None and (self.other not in self.labels or len(self.labels) < 3):
            raise ValueError(
                f"task.other = {self.other!r} must be one of task.labels, with two labels or more beside it"
            )
        return self

    @property
    def num_outputs(self) -> int:
        """One for each label and part of a text."""
        return _PARTS * len(self.labels)

    def inputs(self) -> tuple[str, ...]:
        """Return the text's column."""
        return ("text",)

    def answers(self) -> tuple[str, ...]:
        """Return the label's column."""
        return ("label",)

    def check(self, record: Record) -> str | None:
        """Return the fault of a record, or None."""
        return marks_problem(record["text"]) or label_problem(record["label"], self.labels)

    def translate(self, record: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        """Return a record with the study's label for its own code; a code without a name stays as the file has it."""
        return translated(record, names)

    def stratum(self, record: Record) -> str:
        """Return the label."""
        return next(iter(spellings(record.get("label"))), "")

    def cut(self, record: dict[str, Any], max_chars: int) -> dict[str, Any]:
        """Return a record with its text cut around the two names."""
        text = record["text"]
        if not isinstance(text, str) or len(text) <= max_chars or marks_problem(text):
            return super().cut(record, max_chars)
        places = [text.index(mark) for mark in MARKS]
        start = window_start(min(places), max(places) + len(MARKS[-1]), len(text), max_chars)
        return {**record, "text": text[start : start + max_chars]}

    def made_up(self, seed: int, number: int, words: int | None = None) -> dict[str, Any]:
        """Return a made-up text whose first and last of three words are the names, and a label."""
        first, between, second, *others = made_up_words(seed, number, max(3, words or self.max_length))
        text = " ".join([f"<e1>{first}</e1> {between} <e2>{second}</e2>", *others])
        return {"text": text, "label": self.labels[number % len(self.labels)]}

    def from_text(self, text: str) -> dict[str, Any]:
        """Return a text with its marks as a record without an answer, for predictions."""
        if problem := marks_problem(text):
            raise InputError(problem)
        return {"text": text}

    def truth(self, record: Record) -> str:
        """Return the label of a record."""
        return label_of(record["label"], self.labels)

    def examples(self, record: Record, tokenizer: Any) -> list[Example]:
        """Return token ids, the part of the text to which each token belongs, and the label's index.

        Of a longer text `max_length` tokens are read, with the names in their middle. Where the names stand further
        apart than that, reading begins at the first of them.
        """
        require_fast(tokenizer, self.kind)
        text, parts = signed(record["text"])
        first, last = parts[0][0] - len("$ "), parts[-1][1] + len(" #")
        tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        inside = [number for number, (start, end) in enumerate(tokens) if first < end and start < last]
        room = self.max_length - tokenizer.num_special_tokens_to_add()
        begin = tokens[window_start(inside[0], inside[-1] + 1, len(tokens), room)][0]
        encoded = tokenizer(text[begin:], truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        part = [part_of(begin + start, begin + end, parts) for start, end in encoded["offset_mapping"]]
        return [{"input_ids": encoded["input_ids"], "part": part, "label": index_of(record.get("label"), self.labels)}]

    def columns(self) -> Mapping[str, int]:
        """Return the column of the parts; a token outside of them, as padding is, has part 0."""
        return {"part": 0}

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train: the adapted encoder with a linear head on each token's state."""
        from confide.common.tasks.heads import TokenHead

        return TokenHead(adapted, hidden_size, self.num_outputs)

    def logits(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return logits of shape ``(B, labels)``: for each part the mean of its own outputs, 0 without a token, added.

        The same as a linear layer on the three means of states, but for rounding (`heads.MeanPooledHead` says why).
        """
        import torch

        outputs = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).float()
        means = []
        for number, output in enumerate(outputs.chunk(_PARTS, dim=2), start=1):
            mask = (batch["part"] == number).unsqueeze(2).float()
            means.append((output * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0))
        return torch.stack(means).sum(dim=0)

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return the cross-entropy of each example, shape ``(B,)``."""
        import torch

        return torch.nn.functional.cross_entropy(self.logits(module, batch), batch["label"], reduction="none")

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[str]:
        """Return the most likely label of each example."""
        return [self.labels[index] for index in self.logits(module, batch).argmax(dim=1).tolist()]

    def program(self) -> str:
        """Return the program's lines: the signs, the window, the part of each token, and the likeliest label."""
        return (
            "import re\n\n"
            f'before, one, between, two, after = re.split("{MARK.pattern}", text)\n'
            "ordered = text.index('<e1>') < text.index('<e2>')\n"
            "(a, first), (b, second) = (('$', 1), ('#', 2)) if ordered else (('#', 2), ('$', 1))\n"
            "pieces = [(f'{before}{a} ', 0), (one, first), (f' {a}', 0), (between, 3), (f'{b} ', 0), (two, second)]\n"
            "read, parts = '', []\n"
            "for piece, number in [*pieces, (f' {b}{after}', 0)]:\n"
            "    if number and piece.strip():\n"
            "        start = len(read) + len(piece) - len(piece.lstrip())\n"
            "        parts.append((start, start + len(piece.strip()), number))\n"
            "    read += piece\n"
            "first, last = parts[0][0] - 2, parts[-1][1] + 2\n"
            "spans = tokenizer(read, add_special_tokens=False, return_offsets_mapping=True)['offset_mapping']\n"
            "inside = [number for number, (start, end) in enumerate(spans) if first < end and start < last]\n"
            f"room = {self.max_length} - tokenizer.num_special_tokens_to_add()\n"
            "low, high = inside[0], inside[-1] + 1\n"
            "begin = spans[max(0, min(low, (low + high - room) // 2, len(spans) - room))][0]\n"
            f"tokens = tokenizer(read[begin:], truncation=True, max_length={self.max_length}, return_tensors='pt',\n"
            "                   return_token_type_ids=False, return_offsets_mapping=True)\n"
            "spans = (tokens.pop('offset_mapping')[0] + begin).tolist()\n"
            "with torch.inference_mode():\n"
            "    states = model(**tokens).last_hidden_state\n"
            "each = (states @ head['weight'].T + head['bias'])[0].chunk(3, dim=1)\n"
            f"logits = torch.zeros({len(self.labels)})\n"
            "for first, last, number in parts:\n"
            "    own = torch.tensor([first < end and start < last for start, end in spans])\n"
            "    logits += each[number - 1][own].sum(0) / max(int(own.sum()), 1)\n"
            f"print({list(self.labels)!r}[int(logits.argmax())])"
        )

    def metrics(self, truths: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
        """Return the mean F1 of all labels but ``other``, accuracy, and precision, recall and F1 of each label."""
        rates = rates_of_labels(truths, predictions, self.labels)
        counted = [rates[f"f1/{label}"] for label in self.labels if label != self.other]
        accuracy = sum(map(str.__eq__, truths, predictions)) / len(truths)
        return {"f1": sum(counted) / len(counted), "accuracy": accuracy} | rates
