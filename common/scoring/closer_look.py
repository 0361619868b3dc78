"""Everything that a report says about a finished adapter on test records."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from confide.common.config.run import RunConfig
from confide.common.model.adapter import set_state
from confide.common.model.evaluation import Records, predict
from confide.common.model.warm_model import WarmModel
from confide.common.scoring.chance import HeldOut, wilson
from confide.common.tensors import State

_MOST_CLASSES = 12  # of a table that a person reads


def closer_look(model: WarmModel, run: RunConfig, state: State, shares: Mapping[str, Records]) -> dict[str, Any] | None:
    """Return the numbers of an adapter on all test records together; None without any.

    Args:
        model: of the run.
        run: the locked run.
        state: of the adapter.
        shares: test records by institution.

    Returns:
        ``sizes``: records by institution. ``score``, ``low``, ``high``: the headline with its 95 % interval. That is
        None where the headline is no share of right answers, whose resampling takes minutes for some kinds, and where
        a person has several records, which such an interval would count as several people.
        ``metrics``: every metric. ``commonest``: score of whoever always answers the commonest label, or None for kinds
        without one label for a record. ``confusion``: ``labels`` and ``rows`` (a row for each right label, a number
        for each answer), or None for such kinds and for more labels than a person reads.
    """
    set_state(model.module, state)
    records = [record for share in shares.values() for record in share]
    if not records:
        return None
    answers = predict(model, records)
    truths = [model.task.truth(record) for record in records]
    metrics = model.task.metrics(truths, answers)
    test = HeldOut(model.task, truths, [[place] for place in range(len(records))])
    ends = None if run.privacy.unit == "group" else wilson(test, answers)
    return {
        "sizes": {name: len(share) for name, share in shares.items()},
        "score": metrics[model.task.headline],
        "low": ends.low if ends else None,
        "high": ends.high if ends else None,
        "metrics": metrics,
        "commonest": _commonest(truths) if model.task.headline == "accuracy" else None,
        "confusion": _confusion(truths, answers),
    }


def _commonest(truths: Sequence[Any]) -> float | None:
    if not all(isinstance(truth, str) for truth in truths):
        return None
    return Counter(truths).most_common(1)[0][1] / len(truths)


def _confusion(truths: Sequence[Any], answers: Sequence[Any]) -> dict[str, Any] | None:
    """Return how often each label was answered for each right one.

    >>> _confusion(["a", "a", "b"], ["a", "b", "b"])
    {'labels': ['a', 'b'], 'rows': [[1, 1], [0, 1]]}
    """
    if not all(isinstance(value, str) for value in (*truths, *answers)):
        return None
    labels = sorted({*truths, *answers})
    if len(labels) > _MOST_CLASSES:
        return None
    pairs = Counter(zip(truths, answers, strict=True))
    return {"labels": labels, "rows": [[pairs[right, given] for given in labels] for right in labels]}
