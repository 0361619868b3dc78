"""Empty and long texts: in tokens if the base is at hand, else in words."""

from array import array
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from confide.common.curation.findings import Places
from confide.common.curation.form import Seen
from confide.common.findings import Finding
from confide.common.tasks import Task

_WAITING = 512  # texts that are tokenised together

Count = Callable[[list[str]], list[int]]


def token_counter(tokenizer: Any) -> Count:
    """Return the function that counts the tokens of texts, with the special ones."""

    def count(texts: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]

    return count


def count_words(texts: list[str]) -> list[int]:
    """Return the number of words of each text."""
    return [len(text.split()) for text in texts]


class Lengths:
    """Empty texts, and texts of which a model reads the beginning alone."""

    def __init__(self, task: Task | None, count: Count | None) -> None:
        self.count, self.unit = (count, "tokens") if count else (count_words, "words")
        self.most = task.max_length * getattr(task, "max_windows", 1) if task else None
        self.empty, self.long, self.cut = Places(), Places(), Places()
        self.sizes = array("q")
        self.waiting: list[tuple[int, str]] = []

    def see(self, seen: Seen) -> None:
        """Take one record."""
        if not seen.text.strip():
            self.empty.add(seen.number)
            return
        if seen.was_cut:
            self.cut.add(seen.number)
        self.waiting.append((seen.number, seen.text))
        if len(self.waiting) == _WAITING:
            self._measure()

    def _measure(self) -> None:
        sizes = self.count([text for _, text in self.waiting]) if self.waiting else []
        self.sizes.extend(sizes)
        for (number, _), size in zip(self.waiting, sizes, strict=True):
            if self.most is not None and size > self.most:
                self.long.add(number)
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
        if self.most is None:
            yield Finding("lengths", "ok", f"{text}; --run says how many are read")
        elif self.long.count:
            rest = f"{self.long} have more than the {self.most} tokens that are read, the rest is cut"
            yield Finding("lengths", "warning", f"{text}; {rest}")
        else:
            about = "" if self.unit == "tokens" else ", counted in words, for the base is not at hand"
            yield Finding("lengths", "ok", f"{text}; at most {self.most} tokens are read{about}")
