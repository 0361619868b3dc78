"""Token classification: a type for each name in a text (entities), as BIO tags or as character spans."""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from confide.common.tasks.entities import OUTSIDE, entities, plain, rates, renamed, starts_of
from confide.common.tasks.task import Example, Record, Task, made_up_words, text_problem

if TYPE_CHECKING:
    from torch import Tensor, nn

_WORD = re.compile(r"\w+|[^\w\s]")


class TokenClassification(Task):
    """Settings of `[task]` for kind "token-classification", and the task itself.

    A record has ``tokens`` and ``tags`` ("B-person", "I-person", "O"), or with ``form = "spans"`` a ``text`` and
    ``entities``: objects with ``start``, ``end`` (characters) and ``label``. The types are public. So is the weight of
    "O": almost all words are outside of any name, and at weight 1 a gradient would be about them alone.
    """

    headline: ClassVar[str] = "f1"
    kind: Literal["token-classification"]
    labels: tuple[str, ...] = Field(min_length=1)
    form: Literal["tokens", "spans"] = "tokens"
    outside_weight: float = Field(0.2, ge=0.001, le=1.0)
    max_windows: int = Field(4, ge=1, le=64)

    @field_validator("labels")
    @classmethod
    def _usable(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels) or any(not label.strip() for label in labels):
            raise ValueError(f"labels={list(labels)} must be distinct names of types, without B- and I-")
        return labels

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags: "O", then "B-" and "I-" of each type."""
        return (OUTSIDE, *(f"{part}-{label}" for label in self.labels for part in "BI"))

    @property
    def num_outputs(self) -> int:
        """One for each tag."""
        return len(self.tags)

    def inputs(self) -> tuple[str, ...]:
        """Return the column of the words or of the text."""
        return ("tokens",) if self.form == "tokens" else ("text",)

    def answers(self) -> tuple[str, ...]:
        """Return the column of the tags or of the spans."""
        return ("tags",) if self.form == "tokens" else ("entities",)

    def check(self, record: Record) -> str | None:
        """Return the fault of a record, or None."""
        return self._tokens_problem(record) if self.form == "tokens" else self._spans_problem(record)

    def _tokens_problem(self, record: Record) -> str | None:
        tokens, tags = plain(record["tokens"]), plain(record["tags"])
        if not isinstance(tokens, list) or not tokens:
            return f"tokens is {tokens!r}, must be a list of words, at least one"
        for token in tokens:
            if problem := text_problem(token, "a token"):
                return problem
        if not isinstance(tags, list) or len(tags) != len(tokens):
            size = f"of {len(tags)}" if isinstance(tags, list) else "no list"
            return f"tags ({size}) must be a list with one tag for each of the {len(tokens)} tokens"
        wrong = next((tag for tag in tags if tag not in self.tags), None)
        return (
            None if wrong is None else f"tag {wrong!r} is not one of {list(self.tags)}; mend it or add to task.labels"
        )

    def _spans_problem(self, record: Record) -> str | None:
        text, given = record["text"], plain(record["entities"])
        if problem := text_problem(text):
            return problem
        if not isinstance(given, list):
            return f"entities is {given!r}, must be a list, [] where the text has none"
        problems = (self._span_problem(entity, len(text)) for entity in given)
        return next((problem for problem in problems if problem), None)

    def _span_problem(self, entity: Any, size: int) -> str | None:
        if not isinstance(entity, dict) or not {"start", "end", "label"} <= entity.keys():
            return f"an entity is {entity!r}, must be an object with start, end and label"
        if entity["label"] not in self.labels:
            return f"entity label {entity['label']!r} is not one of {list(self.labels)}; mend it or add to task.labels"
        start, end = entity["start"], entity["end"]
        if isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= size:
            return None
        return (
            f"an entity stands at {start!r} to {end!r}, must be whole numbers within the {size} characters of its text"
        )

    def translate(self, record: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        """Return a record with the study's types for an institution's own."""
        name = self.answers()[0]
        return {**record, name: renamed(record[name], names)} if names and name in record else record

    def made_up(self, seed: int, number: int, words: int | None = None) -> dict[str, Any]:
        """Return made-up words, every third of them a name."""
        tokens = made_up_words(seed, number, words or self.max_length)
        names = [f"B-{self.labels[place % len(self.labels)]}" for place in range(len(tokens))]
        tags = [name if place % 3 == 0 else OUTSIDE for place, name in enumerate(names)]
        if self.form == "tokens":
            return {"tokens": tokens, "tags": tags}
        text, starts = " ".join(tokens), starts_of(tokens)
        spans = [(start, start + len(token), tag) for start, token, tag in zip(starts, tokens, tags, strict=True)]
        named = [{"start": start, "end": end, "label": tag[2:]} for start, end, tag in spans if tag != OUTSIDE]
        return {"text": text, "entities": named}

    def _words(self, record: Record) -> tuple[str, list[int], list[int]]:
        """Return the text, and start and end of each word in it."""
        if self.form == "tokens":
            tokens = list(map(str, plain(record["tokens"])))
            starts = starts_of(tokens)
            return " ".join(tokens), starts, [start + len(token) for start, token in zip(starts, tokens, strict=True)]
        found = list(_WORD.finditer(record["text"]))
        return record["text"], [word.start() for word in found], [word.end() for word in found]

    def from_text(self, text: str) -> dict[str, Any]:
        """Return a record without an answer; its words are what stands between blanks and signs."""
        return {"text": text} if self.form == "spans" else {"tokens": _WORD.findall(text)}

    def truth(self, record: Record) -> list[str]:
        """Return the tag of each word; "O" for all in a record without an answer."""
        _, starts, ends = self._words(record)
        given = plain(record.get(self.answers()[0]))
        if not isinstance(given, list):
            return [OUTSIDE] * len(starts)
        if self.form == "tokens":
            return list(map(str, given))
        tags = [OUTSIDE] * len(starts)
        for entity in given:
            inside = [i for i in range(len(starts)) if starts[i] < entity["end"] and ends[i] > entity["start"]]
            for place, index in enumerate(inside):
                tags[index] = f"{'I' if place else 'B'}-{entity['label']}"
        return tags

    def examples(self, record: Record, tokenizer: Any) -> list[Example]:
        """Return windows of a text: token ids, the tag of each token, and 1 where a token is the first of its word."""
        text, starts, _ = self._words(record)
        tags = [self.tags.index(tag) for tag in self.truth(record)]
        encoded = tokenizer(
            text,
            truncation=True,
            max_length=self.max_length,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        windows, last = [], -1
        for window in range(min(len(encoded["input_ids"]), self.max_windows)):
            firsts = []
            for start, end in encoded["offset_mapping"][window]:
                word = bisect_right(starts, end - 1) - 1 if end > start else -1
                firsts.append(word if word > last else -1)
                last = max(last, word)
            windows.append(
                {
                    "input_ids": list(encoded["input_ids"][window]),
                    "tag": [tags[word] if word >= 0 else 0 for word in firsts],
                    "first": [int(word >= 0) for word in firsts],
                }
            )
        return windows

    def columns(self) -> Mapping[str, int]:
        """Return the two columns beside the token ids; padding is the first token of no word."""
        return {"tag": 0, "first": 0}

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train: the adapted encoder with a linear head on each token's state."""
        from confide.common.tasks.heads import TokenHead

        return TokenHead(adapted, hidden_size, self.num_outputs)

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return the weighted mean cross-entropy over each example's own words, shape ``(B,)``."""
        import torch

        logits = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).float()
        each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["tag"].flatten(), reduction="none")
        weight = torch.where(batch["tag"] == 0, self.outside_weight, 1.0) * batch["first"]
        total = weight.sum(dim=1).clamp(min=self.outside_weight)  # a window may hold no first token of a word
        return (each.view_as(weight) * weight).sum(dim=1) / total

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[list[str]]:
        """Return the likeliest tag of each word of each example."""
        found = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).argmax(dim=2)
        rows = zip(found.tolist(), batch["first"].tolist(), strict=True)
        return [[self.tags[tag] for tag, first in zip(tags, firsts, strict=True) if first] for tags, firsts in rows]

    def join(self, record: Record, outputs: list[list[str]]) -> list[str]:
        """Return the tag of each word of a record; "O" for words beyond the last window."""
        tags = [tag for window in outputs for tag in window]
        return tags + [OUTSIDE] * (len(self._words(record)[1]) - len(tags))

    def program(self) -> str:
        """Return the program's lines: they print each word with its tag, the first window of a long text only."""
        return (
            "import re\n\n"
            "tags = (output.last_hidden_state @ head['weight'].T + head['bias'])[0].argmax(1).tolist()\n"
            f"found = dict.fromkeys((word.span() for word in re.finditer({_WORD.pattern!r}, text)), {OUTSIDE!r})\n"
            f"spans = tokenizer(text, truncation=True, max_length={self.max_length}, return_offsets_mapping=True)\n"
            "for (start, end), tag in reversed(list(zip(spans['offset_mapping'], tags))):\n"
            "    for first, last in found:\n"
            "        if start < end and first < end <= last:\n"
            f"            found[first, last] = {list(self.tags)!r}[tag]\n"
            "print(*(f'{text[first:last]}/{tag}' for (first, last), tag in found.items()))"
        )

    def metrics(self, truths: Sequence[list[str]], predictions: Sequence[list[str]]) -> dict[str, float]:
        """Return precision, recall and F1 of whole entities, over all and for each type."""
        sides = ([set(entities(tags)) for tags in side] for side in (truths, predictions))
        pairs = list(zip(*sides, strict=True))
        result = rates("", [(truth & found, truth, found) for truth, found in pairs])
        for label in self.labels:
            own = [({e for e in side if e[0] == label} for side in pair) for pair in pairs]
            result |= rates(f"/{label}", [(truth & found, truth, found) for truth, found in own])
        return result

    def rightness(self, truth: list[str], prediction: list[str]) -> float:
        """Return F1 of whole entities within one record; 1 where it has none and none is found."""
        right, found = set(entities(truth)), set(entities(prediction))
        return 2 * len(right & found) / (len(right) + len(found)) if right or found else 1.0
