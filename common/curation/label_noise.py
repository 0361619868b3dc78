"""Labels that other records speak against.

A linear model on words predicts each label from the other folds of the file. A record is named where the model is as
sure of another label as it is, on average, for records that have that label ("confident learning", Northcutt et al.
2021), or surer than nine in ten. It is a hint: a rare but right record looks the same.
"""

import heapq
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confide.common.curation.form import Seen
from confide.common.findings import Finding
from confide.common.shown import shown

_SAMPLE = 10_000  # records that are looked at
_CHARS = 1_000  # of each
_FOLDS, _LEAST = 3, 6  # a label with fewer records is left out
_SHOWN = 10
_SURE = 0.9
_USEFUL = 0.6  # of a label at random to all right: a model that knows less says nothing about single records


class LabelNoise:
    """Records whose label looks wrong; of a long file a sample by the hash of a record's number."""

    def __init__(self) -> None:
        self.sample: list[tuple[int, int, str, str]] = []
        self.number = 0

    def see(self, seen: Seen) -> None:
        """Take one record; those with a column "label" and a text count, for a text may have one name by chance."""
        if "label" not in seen.record or len(seen.labels) != 1 or seen.fault is not None or not seen.text.strip():
            return
        self.number += 1
        item = (-zlib.crc32(str(seen.number).encode()), seen.number, seen.text[:_CHARS], seen.labels[0])
        if len(self.sample) < _SAMPLE:
            heapq.heappush(self.sample, item)
        else:
            heapq.heappushpop(self.sample, item)

    def findings(self) -> Iterator[Finding]:
        """Yield one finding; none for a kind without one label for each record."""
        if not self.number:
            return
        counts = Counter(label for *_, label in self.sample)
        chosen = [item for item in self.sample if counts[item[3]] >= _LEAST]
        if len({label for *_, label in chosen}) < 2:
            yield Finding("label noise", "ok", f"not looked at: needs two labels with {_LEAST} records each")
            return
        names = sorted({label for *_, label in chosen})
        given = np.array([names.index(label) for *_, label in chosen])
        sure = _probabilities([text for _, _, text, _ in chosen], given)
        yield self._finding(chosen, names, given, sure)

    def _finding(
        self, chosen: list[tuple[int, int, str, str]], names: list[str], given: NDArray[Any], sure: NDArray[Any]
    ) -> Finding:
        right, chance = float((sure.argmax(1) == given).mean()), float(np.bincount(given).max() / len(given))
        of = f"of {len(chosen)} of {self.number} records" if len(chosen) < self.number else f"of {self.number} records"
        skill = f"a linear model on words finds {right:.0%} {of} ({chance:.0%} by the commonest label alone)"
        if right - chance < (1 - _USEFUL) * (1 - chance):
            return Finding("label noise", "ok", f"cannot be judged: {skill}")
        doubtful = _doubtful(given, sure)
        if not len(doubtful):
            return Finding("label noise", "ok", f"no label that others speak against; {skill}")
        listed = [
            f"at {chosen[place][1]} {shown(names[is_now], 40)}, looks like {shown(names[looks], 40)}"
            for place, is_now, looks in zip(doubtful, given[doubtful], sure[doubtful].argmax(1), strict=True)
        ]
        more = ["..."] if len(doubtful) > _SHOWN else []
        first = "; ".join([*listed[:_SHOWN], *more])
        text = f"{len(doubtful)} labels that others speak against, the surest first: {first}"
        return Finding("label noise", "warning", f"{text}; {skill}")


def _probabilities(texts: list[str], given: NDArray[Any]) -> NDArray[Any]:
    """Return the probability of each label for each text, from folds without it, shape ``(texts, labels)``."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(sublinear_tf=True, max_features=30_000)
    model = make_pipeline(words, LogisticRegression(C=10.0, max_iter=100))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that is not done after 100 steps is good enough for a hint
        try:
            found: NDArray[Any] = cross_val_predict(model, texts, given, cv=folds, method="predict_proba")
        except ValueError:  # no words at all
            return np.full((len(texts), int(given.max()) + 1), 1.0 / (int(given.max()) + 1))
    return found


def _doubtful(given: NDArray[Any], sure: NDArray[Any]) -> NDArray[Any]:
    """Return the places of labels that look wrong, the surest first."""
    means = np.array([sure[given == label, label].mean() for label in range(sure.shape[1])])
    best = sure.argmax(1)
    rows = np.arange(len(given))
    wrong = (best != given) & (sure[rows, best] >= means.clip(max=_SURE)[best])
    places = np.flatnonzero(wrong)
    ordered: NDArray[Any] = places[np.argsort(sure[places, given[places]], kind="stable")]
    return ordered
