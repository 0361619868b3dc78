"""The head attack: a head's change for a single text tells its label, and which of many texts it was.

The gradient of a linear layer on the mean of a text's states is the product of two vectors: the error of each output,
and the mean state with a 1 for the bias (Zhao, Mopuri and Bilen, arXiv 2001.02610, read labels so). The error is
negative at the right label alone. The state is as good as a fingerprint for whoever has the base and a list of texts.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from confide.common.config.run import RunConfig
from confide.common.data.batches import Example, collate, length, padded_length
from confide.common.model.warm_model import WarmModel
from confide.common.privacy.plan import Plan, PrivacyPlan
from confide.common.tasks.heads import MeanPooledHead, TokenHead
from confide.common.tasks.multi_label_classification import MultiLabelClassification
from confide.common.tasks.text_classification import TextClassification
from confide.common.tensors import State
from confide.simulations.reconstruction.inversion import PLAIN, lone_plan, lone_update

CANDIDATES = 1000  # texts on the attacker's list
_TEXTS = 50  # of them, each attacked alone in its round
_NO_NOISE = 1e-6  # times the clip norm: a plan has some
_ROWS = 64  # of candidates, read at once


@dataclass(frozen=True)
class CameBack:
    """Shares of what came back, by what the attacker saw.

    Attributes:
        with_noise: the update as the run's plan makes it, of one institution.
        without_noise: an update without privacy.
        chance: an update of the run's noise alone: a round that nobody's text is in.
        clip_alone: the update with its clip and next to no noise; None where it was not tried.
    """

    with_noise: float
    without_noise: float
    chance: float
    clip_alone: float | None = None


@dataclass(frozen=True)
class HeadAttack:
    """The labels and texts that came back.

    Attributes:
        texts: how many were attacked, each alone in its round.
        candidates: texts on the attacker's list.
        labels: share of texts whose label came back; None where a head has no labels.
        named: share of texts that were named among the candidates.
        void: why the attack says nothing about this run; None where it was tried.
    """

    texts: int = 0
    candidates: int = 0
    labels: CameBack | None = None
    named: CameBack | None = None
    void: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return its fields."""
        return asdict(self)


def attack_head(run: RunConfig, model: WarmModel, num_texts: int = _TEXTS, candidates: int = CANDIDATES) -> HeadAttack:
    """Attack made-up texts by the change of the head alone.

    Args:
        run: locked.
        model: its warm model, with start values.
        num_texts: attacked, of those on the list.
        candidates: on the list.
    """
    if not isinstance(model.module, MeanPooledHead):
        return HeadAttack(void=_reason(run, model))
    texts = _made_up(model, candidates)
    states_NH = _states(model.module, model, texts)
    right = dict[str, list[tuple[bool, bool]]]()
    for place, text in list(enumerate(texts))[:num_texts]:
        for way, update in _seen(run, model, text):
            change_OH = _head_of(update)
            label_is_right = guessed_labels(change_OH, model) == _labels_of(text, model)
            right.setdefault(way, []).append((label_is_right, nearest(change_OH, states_NH) == place))
    labels, named = (
        CameBack(**{way: sum(one[part] for one in ones) / len(ones) for way, ones in right.items()}) for part in (0, 1)
    )
    return HeadAttack(len(texts[:num_texts]), len(texts), labels if _has_labels(model) else None, named)


def guessed_labels(change_OH: NDArray[np.float64], model: WarmModel) -> set[int]:
    """Return the numbers of the labels that a head's change betrays, by its error vector alone.

    Args:
        change_OH: weights, and the bias as the last column.
        model: of a kind with labels or without; of the latter nothing is guessed.
    """
    left, _, right = np.linalg.svd(change_OH, full_matrices=False)
    pull_O = left[:, 0] * np.sign(right[0, -1])  # the bias' input is 1, which gives the sign
    if isinstance(model.task, TextClassification):
        return {int(pull_O.argmax())}
    return {int(number) for number in (pull_O > 0).nonzero()[0]} if _has_labels(model) else set()


def nearest(change_OH: NDArray[np.float64], states_NH: NDArray[np.float64]) -> int:
    """Return the number of the candidate whose state explains most of a head's change."""
    unit_NH = states_NH / np.linalg.norm(states_NH, axis=1, keepdims=True)
    return int(np.linalg.norm(unit_NH @ change_OH.T, axis=1).argmax())


def _seen(run: RunConfig, model: WarmModel, text: Example) -> Iterator[tuple[str, State]]:
    """Yield the updates that an attacker may see, by the name that `CameBack` gives them."""
    private: Plan = lone_plan(run)
    yield "with_noise", lone_update(model, text, private)
    if isinstance(private, PrivacyPlan):
        yield "clip_alone", lone_update(model, text, replace(private, noise_multiplier=_NO_NOISE))
    yield "without_noise", lone_update(model, text, PLAIN)
    yield "chance", lone_update(model, None, private)


def _head_of(update: State) -> NDArray[np.float64]:
    joined = np.concatenate([update["head.weight"], update["head.bias"][:, None]], axis=1)
    return joined.astype(np.float64)


def _made_up(model: WarmModel, count: int) -> list[Example]:
    """Return examples of made-up records of 4 to 19 words."""
    records = (model.task.made_up(2, number, 4 + number % 16) for number in range(count))
    return [example for record in records for example in model.task.examples(record, model.tokenizer)[:1]]


def _labels_of(text: Example, model: WarmModel) -> set[int]:
    if isinstance(model.task, MultiLabelClassification):
        return {number for number in range(len(model.task.labels)) if text[f"label {number}"]}
    return {text["label"]} if isinstance(model.task, TextClassification) else set()


def _has_labels(model: WarmModel) -> bool:
    return isinstance(model.task, TextClassification | MultiLabelClassification)


def _states(head: MeanPooledHead, model: WarmModel, texts: list[Example]) -> NDArray[np.float64]:
    """Return what the head reads of each text, with a 1 for the bias, shape ``(N, hidden + 1)``."""
    order = np.argsort([length(text) for text in texts], kind="stable")
    parts = [
        _means(head, model, [texts[place] for place in part])
        for part in np.split(order, range(_ROWS, len(order), _ROWS))
    ]
    means_NH = np.concatenate(parts)[np.argsort(order)]
    return np.concatenate([means_NH, np.ones((len(texts), 1))], axis=1)


def _means(head: MeanPooledHead, model: WarmModel, texts: list[Example]) -> NDArray[np.float64]:
    """Return the mean state of each text, the last of which is the longest, shape ``(B, hidden)``."""
    batch = collate(texts, padded_length(length(texts[-1])), model.pads, model.device)
    mask = batch["attention_mask"].unsqueeze(-1).double()
    with torch.no_grad():
        states = head.states(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))
    means: NDArray[np.float64] = ((states.double() * mask).sum(dim=1) / mask.sum(dim=1)).cpu().numpy()
    return means


def _reason(run: RunConfig, model: WarmModel) -> str:
    if run.task.native_head:
        return "the base's own head is trained, which has several layers; this attack reads a single one"
    if isinstance(model.module, TokenHead):
        return f"the head of task.kind = {run.task.kind!r} reads every token, so its change mixes their states"
    return f"no head is trained in task.kind = {run.task.kind!r}"
