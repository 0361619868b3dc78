"""Records without an answer that are best labelled next: those of which a finished adapter is unsure, of many sorts.

The most uncertain records, ten for each one to choose, are clustered by their words (k-means on TF-IDF, weighted by
uncertainty), and of each cluster the most uncertain one is chosen: "diverse mini-batch active learning", Zhdanov 2019.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from confide.common.curation.form import text_of
from confide.common.errors import InputError
from confide.common.forms.entities import plain
from confide.common.forms.texts import text_problem
from confide.common.model.evaluation import of_windows
from confide.common.model.warm_model import WarmModel
from confide.common.tasks import Task
from confide.common.tasks.multi_label_classification import MultiLabelClassification
from confide.common.tasks.relation_classification import RelationClassification
from confide.common.tasks.text_classification import TextClassification
from confide.common.tasks.token_classification import TokenClassification

_CANDIDATES = 10  # for each record to choose
_AT_A_TIME = 4096  # records whose tokens are held together


def require_measure(task: Task) -> None:
    """Require a kind whose model gives probabilities.

    Raises:
        InputError: it is another.
    """
    if not isinstance(
        task, TextClassification | RelationClassification | MultiLabelClassification | TokenClassification
    ):
        kind = task.model_dump()["kind"]
        raise InputError(
            f"task.kind = {kind!r} gives no probability of an answer, so nothing says how unsure it is; suggestions "
            "are for text-classification, multi-label-classification, relation-classification and token-classification"
        )


def uncertainties(task: Task, module: nn.Module, batch: Mapping[str, Tensor]) -> list[float]:
    """Return the entropy of the answer for each example, as a share of the largest possible.

    Of several labels, or of the words of a text, the largest counts.
    """
    if isinstance(task, TextClassification | RelationClassification):
        return [float(value) for value in _entropy(task.logits(module, batch))]
    if isinstance(task, MultiLabelClassification):
        logits = task.logits(module, batch)
        return [float(value) for value in _entropy(torch.stack([torch.zeros_like(logits), logits], dim=2)).amax(dim=1)]
    if isinstance(task, TokenClassification):
        words = _entropy(task.logits(module, batch)) * (batch["word"] > 0)
        return [float(value) for value in words.amax(dim=1)]
    require_measure(task)
    return []


def _entropy(logits: Tensor) -> Tensor:
    """Return the entropy over the last dimension, from 0 to 1."""
    entropy: Tensor = torch.special.entr(logits.softmax(dim=-1)).sum(dim=-1) / math.log(logits.shape[-1])
    return entropy


def chosen_records(model: WarmModel, records: Sequence[Mapping[str, Any]], number: int) -> list[tuple[int, float]]:
    """Return the places of the records to label next with the model's uncertainty, the most uncertain first.

    A record that the task cannot read is passed over.
    """
    require_measure(model.task)
    model.wrapped.disable_hooks()
    unsure = dict[int, float]()
    for start in range(0, len(records), _AT_A_TIME):
        part = {
            start + place: windows
            for place, record in enumerate(records[start : start + _AT_A_TIME])
            if (windows := _windows(model, record))
        }
        outputs = of_windows(model, list(part.values()), lambda *batch: uncertainties(model.task, *batch))
        unsure |= {place: max(own) for place, own in zip(part, outputs, strict=True) if own}
    ordered = sorted(unsure, key=lambda place: (-unsure[place], place))[: _CANDIDATES * number]
    texts = [" ".join(text_of(records[place][name]) for name in model.task.inputs()) for place in ordered]
    chosen = _of_many_sorts(texts, np.array([unsure[place] for place in ordered]), number)
    return [(ordered[place], unsure[ordered[place]]) for place in chosen]


def _windows(model: WarmModel, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the windows of a record; none of one whose inputs are no texts."""
    given = [(name, plain(record[name])) for name in model.task.inputs()]
    words = [value if name == "tokens" and isinstance(value, list) else [value] for name, value in given]
    texts = [text for parts in words for text in parts or [""]]
    if any(text_problem(text) for text in texts):
        return []
    try:
        return model.task.examples(record, model.tokenizer)
    except InputError:
        raise  # it is about the tokenizer
    except Exception:  # noqa: BLE001 - a record may have any form
        return []


def _of_many_sorts(texts: list[str], unsure: NDArray[np.float64], number: int) -> list[int]:
    """Return the place of the first text of each of ``number`` clusters, in their order."""
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    count = min(number, len(Counter(texts)))
    if count < 2:
        return list(range(min(count, 1)))
    words = TfidfVectorizer(sublinear_tf=True, max_features=20_000, analyzer="char_wb", ngram_range=(3, 4))
    means = KMeans(count, n_init=10, random_state=0)
    clusters = means.fit(words.fit_transform(texts), sample_weight=unsure + 1e-6).labels_
    return sorted(np.unique(clusters, return_index=True)[1].tolist())
