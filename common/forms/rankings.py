"""Candidates for a query: their form in a file, their faults, and how an order is compared with their relevance."""

from collections.abc import Sequence
from typing import Any

from confide.common.forms.entities import plain
from confide.common.forms.labels import number_of
from confide.common.forms.texts import text_problem


def list_problem(candidates: Any, relevance: Any, highest: float) -> str | None:
    """Return the fault of candidates and the relevance of each, or None."""
    candidates, relevance = plain(candidates), plain(relevance)
    if not isinstance(candidates, list) or len(candidates) < 2:
        return f"candidates is {candidates!r:.60}, must be a list of texts, at least two"
    if problem := next((found for text in candidates if (found := text_problem(text, "a candidate"))), None):
        return problem
    if not isinstance(relevance, list) or len(relevance) != len(candidates):
        size = f"of {len(relevance)}" if isinstance(relevance, list) else "no list"
        return f"relevance ({size}) must be a list with a number for each of the {len(candidates)} candidates"
    wrong = [value for value in relevance if not _within(value, highest)][:1]
    return (
        f"relevance {wrong[0]!r:.60} is no number from 0 to {highest:g}; mend it or change task.highest"
        if wrong
        else None
    )


def _within(value: Any, highest: float) -> bool:
    number = number_of(value)
    return number is not None and 0 <= number <= highest


def ndcg(relevance: Sequence[float], scores: Sequence[float]) -> float | None:
    """Return the normalised discounted cumulative gain of an order; None where every order is as good.

    >>> ndcg([0, 1, 0], [0.1, 0.9, 0.2]), ndcg([1, 1], [0.1, 0.2])
    (1.0, None)
    """
    from sklearn.metrics import ndcg_score

    if not _orderable(relevance):
        return None
    return min(1.0, float(ndcg_score([list(relevance)], [list(scores)])))  # not above 1 by a rounding


def reciprocal_rank(relevance: Sequence[float], scores: Sequence[float]) -> float | None:
    """Return 1 by the rank of the first candidate that has any relevance, behind others of its score; None as above.

    >>> reciprocal_rank([0, 1, 0], [0.5, 0.5, 0.2])
    0.5
    """
    if not _orderable(relevance):
        return None
    best = max(score for score, value in zip(scores, relevance, strict=True) if value > 0)
    before = sum(score >= best for score, value in zip(scores, relevance, strict=True) if not value > 0)
    return 1 / (1 + before)


def area(relevance: Sequence[float], scores: Sequence[float]) -> float | None:
    """Return the share of pairs of a candidate with and one without relevance that stand in order (AUC); None as above.

    None too where all have some relevance.
    """
    from sklearn.metrics import roc_auc_score

    relevant = [value > 0 for value in relevance]
    return float(roc_auc_score(relevant, list(scores))) if len(set(relevant)) > 1 else None


def _orderable(relevance: Sequence[float]) -> bool:
    return len(set(relevance)) > 1
