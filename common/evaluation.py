"""Predictions and accuracy of an adapter on public records."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from confide.common.accuracy import Accuracy
from confide.common.adapter import set_state
from confide.common.batches import collate, length, sorted_batches
from confide.common.gate import State
from confide.common.warm_model import WarmModel

Records = Sequence[Mapping[str, Any]]


def predict(model: WarmModel, records: Records, tokens_per_batch: int = 2048) -> list[str]:
    """The model's prediction for each record, in the order of the records; "" for a text without any token."""
    model.wrapped.disable_hooks()
    examples = [model.task.encode(record, model.tokenizer) for record in records]
    predictions = [""] * len(examples)
    readable = [index for index, example in enumerate(examples) if length(example)]
    with torch.inference_mode():
        for batch in sorted_batches([examples[index] for index in readable], tokens_per_batch):
            rows = [readable[position] for position in batch]
            tensors = collate(
                [examples[row] for row in rows], length(examples[rows[-1]]), model.pad_token_id, model.device
            )
            for row, prediction in zip(rows, model.task.predict(model.module, tensors), strict=True):
                predictions[row] = prediction
    return predictions


def evaluate(model: WarmModel, state: State, shares: Mapping[str, Records]) -> Accuracy:
    """Score an adapter on public test shares, by institution."""
    set_state(model.module, state)
    scores = {}
    for name, records in shares.items():
        truths = [model.task.truth(record) for record in records]
        scores[name] = model.task.score(truths, predict(model, records))
    return Accuracy(scores)
