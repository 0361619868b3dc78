"""Metrics of texts: perplexity of what was there, and BLEU, chrF, ROUGE and exact match of what a model wrote."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

WORST_LOSS = 700.0  # of a token; above it the exponential is no float


def perplexity(losses: Sequence[tuple[float, int]]) -> float:
    """Return exp of the mean loss of a token, from the sum of losses and the number of tokens of each record.

    >>> round(perplexity([(math.log(4), 1), (math.log(16), 2)]), 9)
    4.0
    """
    tokens = sum(number for _, number in losses)
    mean = sum(loss for loss, _ in losses) / tokens if tokens else 0.0
    return math.exp(min(mean, WORST_LOSS))


def written_metrics(references: Sequence[str], texts: Sequence[str]) -> dict[str, float]:
    """Return BLEU and chrF (0 to 100, as sacrebleu gives them), and ROUGE and exact match (0 to 1) of written texts."""
    from sacrebleu import corpus_bleu, corpus_chrf

    pairs = list(zip(references, texts, strict=True))
    return {
        "bleu": float(corpus_bleu(list(texts), [list(references)]).score),
        "chrf": float(corpus_chrf(list(texts), [list(references)]).score),
        "rouge-1": _mean([_overlap(_words(a), _words(b)) for a, b in pairs]),
        "rouge-2": _mean([_overlap(_pairs(a), _pairs(b)) for a, b in pairs]),
        "rouge-l": _mean([_longest_common(_words(a), _words(b)) for a, b in pairs]),
        "exact match": _mean([float(a.split() == b.split()) for a, b in pairs]),
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _pairs(text: str) -> list[tuple[str, str]]:
    return list(pairwise(_words(text)))


def _f1(common: int, one: int, other: int) -> float:
    return 2 * common / (one + other) if one + other else 1.0


def _overlap(one: list[Any], other: list[Any]) -> float:
    """Return F1 of the parts that two texts share: ROUGE-N (Lin, 2004)."""
    return _f1((Counter(one) & Counter(other)).total(), len(one), len(other))


def _longest_common(one: list[str], other: list[str]) -> float:
    """Return F1 of the longest common subsequence of words: ROUGE-L (Lin, 2004)."""
    lengths = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, theirs in enumerate(other, start=1):
            same = before + 1 if word == theirs else max(lengths[place], lengths[place - 1])
            before, lengths[place] = lengths[place], same
    return _f1(lengths[-1], len(one), len(other))
