"""Empty texts, and long ones, of which the task's kind does not read everything.

Tokens are those of the run's base. Where it is not at hand, words stand for tokens.
"""

from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

from confide.common.curation.findings import Places
from confide.common.curation.form import Form, Seen
from confide.common.data.records import Record
from confide.common.findings import Finding
from confide.common.tasks import Task
from confide.common.tasks.ranking import Ranking

_WAITING = 512  # texts that are tokenised together
_MOST_TOKENS, _MOST_WINDOWS = 32_768, 1_000_000  # of an example, the most that any kind allows; of a record
_LEAST_PART = 3  # a question has a third of an example, so a record of that length is read whole


def word_tokenizer() -> Any:
    """Return a tokenizer that makes one token of each word, and special ones as BERT's does."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import BertProcessing
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"?": 0}, "?"))
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = BertProcessing(("?", 0), ("?", 0))
    template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    return PreTrainedTokenizerFast(tokenizer_object=words, chat_template=template)


def is_cut(task: Task, record: Record, tokenizer: Any) -> bool:
    """Return whether a checked record has tokens that its examples lack.

    With longer examples it would have more tokens in all then, or with more windows or candidates more examples.
    """
    longer = _longer(task).examples(record, tokenizer)
    if isinstance(task, Ranking) and len(longer) > task.max_candidates:
        return True
    if all(_LEAST_PART * len(column) <= task.max_length for example in longer for column in _columns(example)):
        return False
    own = task.examples(record, tokenizer)
    if _size(longer) > _size(own):
        return True
    more = {"max_windows": _MOST_WINDOWS} if "max_windows" in type(task).model_fields else {}
    return bool(more) and len(task.model_copy(update=more).examples(record, tokenizer)) > len(own)


def _longer(task: Task) -> Task:
    """Return a task that reads examples of any length, and one candidate more."""
    one_more = {"max_candidates": task.max_candidates + 1} if isinstance(task, Ranking) else {}
    return task.model_copy(update={"max_length": _MOST_TOKENS, **one_more})


def _columns(example: dict[str, Any]) -> list[list[Any]]:
    """Return the columns with a value for each token; each text of an example has its own."""
    return [column for column in example.values() if isinstance(column, list)]


def _size(examples: list[dict[str, Any]]) -> int:
    return sum(len(column) for example in examples for column in _columns(example))


class Lengths:
    """Empty texts, and records of which the model does not read everything."""

    def __init__(self, form: Form) -> None:
        self.task, self.unit = form.task, "tokens" if form.tokenizer else "words"
        self.tokenizer = form.tokenizer or word_tokenizer()
        self.empty, self.long, self.cut = Places(), Places(), Places()
        self.sizes = array("q")
        self.waiting: list[str] = []

    def see(self, seen: Seen) -> None:
        """Take one record."""
        if seen.lacks_text:
            self.empty.add(seen.number)
            return
        if seen.was_cut:
            self.cut.add(seen.number)
        if self.task and not seen.fault and is_cut(self.task, seen.record, self.tokenizer):
            self.long.add(seen.number)
        self.waiting.append(seen.text)
        if len(self.waiting) == _WAITING:
            self._measure()

    def _measure(self) -> None:
        if self.waiting:
            special = self.unit == "tokens"
            encoded = self.tokenizer(self.waiting, add_special_tokens=special, verbose=False)
            self.sizes.extend(map(len, encoded["input_ids"]))
        self.waiting.clear()

    def findings(self) -> Iterator[Finding]:
        """Yield a finding about empty texts, and one about lengths."""
        self._measure()
        text = f"{self.empty}; remove them" if self.empty.count else "none"
        yield Finding("empty texts", "warning" if self.empty.count else "ok", text)
        if self.cut.count:
            yield Finding(
                "long texts", "warning", f"{self.cut} are cut to max_chars of [dataset], 20,000 without a site"
            )
        if not self.sizes:
            return
        middle, high, top = (int(value) for value in np.percentile(self.sizes, (50, 95, 100)))
        text = f"half have at most {middle} {self.unit}, 95 % at most {high}, the longest {top}"
        if self.task is None:
            yield Finding("lengths", "ok", f"{text}; --run says how many are read")
            return
        about = "" if self.unit == "tokens" else ", counted in words, for the base is not at hand"
        if self.long.count:
            text += f"; {self.long} have more than is read, {_room(self.task)}; the rest is cut{about}"
        else:
            text += f"; all is read, {_room(self.task)}{about}"
        yield Finding("lengths", "warning" if self.long.count else "ok", text)


def _room(task: Task) -> str:
    """Return in words how much of a record is read at most."""
    most = {"examples": getattr(task, "max_windows", 1), "candidates": getattr(task, "max_candidates", 1)}
    parts = [f", {count} {name} a record" for name, count in most.items() if count > 1]
    return f"at most {task.max_length} tokens an example{''.join(parts)}"
