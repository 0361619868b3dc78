"""Everything that a report says about a finished adapter on test records."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from confide.common.config.run import RunConfig
from confide.common.model.adapter import set_state
from confide.common.model.evaluation import Records, predict
from confide.common.model.warm_model import WarmModel
from confide.common.scoring.chance import HeldOut, Interval, interval
from confide.common.tasks import Task
from confide.common.tensors import State

_MOST_CLASSES = 12  # of a table that a person reads
_MOST_SECONDS = 0.01  # for one score; an interval takes five hundred


def closer_look(model: WarmModel, run: RunConfig, state: State, shares: Mapping[str, Records]) -> dict[str, Any] | None:
    """Return the numbers of an adapter on all test records together; None without any.

    Args:
        model: of the run.
        run: the locked run.
        state: of the adapter.
        shares: test records by institution.

    Returns:
        ``sizes``: records by institution. ``score``, ``low``, ``high``: the headline with its 95 % interval
        (None where
        it would take long, and where records of one person stand side by side, of which it would have to know).
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
    score, ends = model.task.score(truths, answers), _interval(model.task, truths, answers, run.privacy.unit)
    return {
        "sizes": {name: len(share) for name, share in shares.items()},
        "score": score,
        "low": ends.low if ends else None,
        "high": ends.high if ends else None,
        "metrics": model.task.metrics(truths, answers),
        "commonest": _commonest(truths) if model.task.headline == "accuracy" else None,
        "confusion": _confusion(truths, answers),
    }


def _interval(task: Task, truths: Sequence[Any], answers: Sequence[Any], unit: str) -> Interval | None:
    if unit == "group":
        return None
    began = time.perf_counter()
    task.score(truths, answers)
    if time.perf_counter() - began > _MOST_SECONDS:
        return None
    return interval(HeldOut(task, truths, [[place] for place in range(len(truths))]), answers)


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
