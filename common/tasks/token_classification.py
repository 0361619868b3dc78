"""Token classification: a type for each name in a text (entities), as BIO tags or as character spans."""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from confide.common.forms.entities import (
    AS_SPANS,
    AS_TAGS,
    OUTSIDE,
    ends_within,
    entities,
    fitting,
    plain,
    rates,
    renamed,
    spans_of,
    spans_problem,
    starts_of,
    tags_of,
    words_problem,
)
from confide.common.forms.labels import find_label, label_of
from confide.common.forms.texts import made_up_words
from confide.common.forms.windows import require_fast
from confide.common.tasks.task import OUTPUT, Example, Record, Task

if TYPE_CHECKING:
    from torch import Tensor, nn

_WORD = re.compile(r"\w+|[^\w\s]")
_CHARS_A_TOKEN = 64  # more than a token has; so much of a list of words is read, whatever it holds


class TokenClassification(Task):
    """Settings of `[task]` for kind "token-classification", and the task itself.

    A record has ``tokens`` and ``tags`` ("B-person", "I-person", "O"), or with ``form = "spans"`` a ``text`` and
    ``entities``: objects with ``start``, ``end`` (characters) and ``label``. The types are public. So is the weight of
    "O": almost all words are outside of any name, and at weight 1 a gradient would be about them alone.
    """

    headline: ClassVar[str] = "f1"
    pipeline_tag: ClassVar[str] = "token-classification"
    kind: Literal["token-classification"]
    labels: tuple[str, ...] = Field(min_length=1)
    form: Literal["tokens", "spans"] = "tokens"
    outside_weight: float = Field(0.2, ge=0.001, le=1.0)
    max_windows: int = Field(4, ge=1, le=64)

    @field_validator("labels")
    @classmethod
    def _usable(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [label for label in labels if not label.strip() or label == OUTSIDE or label[:2] in ("B-", "I-")]
        if wrong or len(set(labels)) < len(labels):
            raise ValueError(f'labels={list(labels)} must be distinct types, as "person": without B-, I- and O')
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
        if self.form == "tokens":
            return words_problem(record["tokens"], record["tags"], self.tags)
        return spans_problem(record["text"], record["entities"], self.labels)

    def translate(self, record: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
        """Return a record with the study's types for an institution's own."""
        name = self.answers()[0]
        return {**record, name: renamed(record[name], names)} if names and name in record else record

    def made_up(self, seed: int, number: int, words: int | None = None) -> dict[str, Any]:
        """Return made-up words, every third of them a name; by default they fill all windows."""
        tokens = made_up_words(seed, number, words or self._longest)
        names = [f"B-{self.labels[place % len(self.labels)]}" for place in range(len(tokens))]
        tags = [name if place % 3 == 0 else OUTSIDE for place, name in enumerate(names)]
        if self.form == "tokens":
            return {"tokens": tokens, "tags": tags}
        text, starts = " ".join(tokens), starts_of(tokens)
        spans = [(start, start + len(token), tag) for start, token, tag in zip(starts, tokens, tags, strict=True)]
        named = [{"start": start, "end": end, "label": tag[2:]} for start, end, tag in spans if tag != OUTSIDE]
        return {"text": text, "entities": named}

    def words(self, record: Record) -> tuple[str, list[int], list[int]]:
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

    def cut(self, record: dict[str, Any], max_chars: int) -> dict[str, Any]:
        """Return a record with its text or its words cut, and with it the tags or entities beyond."""
        answer = plain(record.get(self.answers()[0]))
        if self.form == "spans":
            short = super().cut(record, max_chars)
            inside = isinstance(answer, list) and isinstance(record["text"], str) and len(record["text"]) > max_chars
            kept = [entity for entity in answer if ends_within(entity, max_chars)] if inside else answer
            return {**short, "entities": kept} if inside else short
        tokens = plain(record["tokens"])
        if not isinstance(tokens, list):
            return record
        kept = fitting(tokens, min(max_chars, self._longest * _CHARS_A_TOKEN), self._longest)
        tags = answer[:kept] if isinstance(answer, list) and len(answer) == len(tokens) else answer
        return {**record, "tokens": tokens[:kept], "tags": tags} if kept < len(tokens) else record

    @property
    def _longest(self) -> int:
        """The most tokens of a record that are read."""
        return self.max_length * self.max_windows

    def truth(self, record: Record) -> list[str]:
        """Return the tag of each word; "O" for all in a record without an answer. Of spans that overlap one counts."""
        _, starts, ends = self.words(record)
        given = plain(record.get(self.answers()[0]))
        if not isinstance(given, list):
            return [OUTSIDE] * len(starts)
        if self.form == "tokens":
            tags = self.tags
            return [find_label(tag, tags) or str(tag) for tag in given]
        return tags_of([{**span, "label": label_of(span["label"], self.labels)} for span in given], starts, ends)

    def examples(self, record: Record, tokenizer: Any) -> list[Example]:
        """Return windows of a text: token ids, and of the first token of each word its number (from 1) and its tag.

        Raises:
            InputError: the tokenizer cannot tell at which characters a token stands.
        """
        require_fast(tokenizer, self.kind)
        text, starts, ends = self.words(record)
        numbers = {tag: number for number, tag in enumerate(self.tags)}
        tags = [numbers[tag] for tag in self.truth(record)]
        encoded = tokenizer(
            text,
            truncation=True,
            max_length=self.max_length,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        windows, done = [], 0
        for window in range(min(len(encoded["input_ids"]), self.max_windows)):
            words = []
            for start, end in encoded["offset_mapping"][window]:
                word = max(done, bisect_right(ends, start))  # the first that is left and ends after the token begins
                begins = start < end and word < len(starts) and starts[word] < end
                words.append(word + 1 if begins else 0)
                done = word + 1 if begins else done
            tag = [tags[word - 1] if word else 0 for word in words]
            windows.append({"input_ids": list(encoded["input_ids"][window]), "word": words, "tag": tag})
        return windows

    def columns(self) -> Mapping[str, int]:
        """Return the two columns beside the token ids; a token that begins no word, as padding does, has word 0."""
        return {"word": 0, "tag": 0}

    def build(self, adapted: "nn.Module", hidden_size: int) -> "nn.Module":
        """Return the module to train: the adapted encoder with a linear head on each token's state."""
        from confide.common.tasks.heads import TokenHead

        return TokenHead(adapted, hidden_size, self.num_outputs)

    def logits(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return a logit of each tag for each token, shape ``(B, T, tags)``, float32."""
        logits: Tensor = module(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        return logits.float()

    def losses(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> "Tensor":
        """Return the weighted mean cross-entropy over each example's own words, shape ``(B,)``."""
        import torch

        logits = self.logits(module, batch)
        each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["tag"].flatten(), reduction="none")
        weight = torch.where(batch["tag"] == 0, self.outside_weight, 1.0) * (batch["word"] > 0)
        total = weight.sum(dim=1).clamp(min=self.outside_weight)  # a window may hold no first token of a word
        return (each.view_as(weight) * weight).sum(dim=1) / total

    def predict(self, module: "nn.Module", batch: "Mapping[str, Tensor]") -> list[dict[int, str]]:
        """Return the likeliest tag of each word that begins in an example, by its number."""
        found = self.logits(module, batch).argmax(dim=2)
        names, rows = self.tags, zip(found.tolist(), batch["word"].tolist(), strict=True)
        return [{word: names[tag] for tag, word in zip(tags, words, strict=True) if word} for tags, words in rows]

    def join(self, record: Record, outputs: list[dict[int, str]]) -> list[str]:
        """Return the tag of each word of a record; "O" for words of which no window has a token."""
        found = {word: tag for window in outputs for word, tag in window.items()}
        return [found.get(number, OUTSIDE) for number in range(1, len(self.words(record)[1]) + 1)]

    def shown(self, record: Record, prediction: list[str]) -> list[Any]:
        """Return the tags, or with ``form = "spans"`` the entities that the metrics read in them, as JSON objects."""
        return prediction if self.form == "tokens" else spans_of(prediction, *self.words(record))

    def program(self) -> str:
        """Return the program's lines: words with their tags, or entities; the first window of a long text only."""
        return (
            f"import re\n\n{OUTPUT.format(max_length=self.max_length)}"
            "tags = (output.last_hidden_state @ head['weight'].T + head['bias'])[0].argmax(1).tolist()\n"
            f"found = dict.fromkeys((match.span() for match in re.finditer({_WORD.pattern!r}, text)), {OUTSIDE!r})\n"
            f"spans = tokenizer(text, truncation=True, max_length={self.max_length}, return_offsets_mapping=True)\n"
            "left = iter(found)\n"
            "word = next(left, None)\n"
            "for (start, end), tag in zip(spans['offset_mapping'], tags):\n"
            "    while word and word[1] <= start < end:\n"
            "        word = next(left, None)\n"
            "    if word and start < end and word[0] < end:\n"
            f"        found[word] = {list(self.tags)!r}[tag]\n"
            "        word = next(left, None)\n"
            f"{AS_TAGS if self.form == 'tokens' else AS_SPANS}"
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
