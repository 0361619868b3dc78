"""Predictions and accuracy of an adapter on public records."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from confide.common.data.batches import collate, length, sorted_batches
from confide.common.model.adapter import set_state
from confide.common.model.scores import Accuracy
from confide.common.model.warm_model import WarmModel
from confide.common.tensors import State

Records = Sequence[Mapping[str, Any]]
_RECORDS_AT_A_TIME = 4096


def predict(model: WarmModel, records: Records, tokens_per_batch: int = 2048) -> list[str]:
    """Return the model's prediction for each record, in the order of the records; "" for a text without any token.

    Texts of like length share a batch, so a score's last bits can depend on the other records. Memory holds the tokens
    and tensors of at most 4,096 records at a time.
    """
    model.wrapped.disable_hooks()
    predictions: list[str] = []
    for start in range(0, len(records), _RECORDS_AT_A_TIME):
        predictions += _predict_some(model, records[start : start + _RECORDS_AT_A_TIME], tokens_per_batch)
    return predictions


def _predict_some(model: WarmModel, records: Records, tokens_per_batch: int) -> list[str]:
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
    """Score an adapter on public test shares, by institution. One pass over all: a thousand passes would be slow."""
    set_state(model.module, state)
    records = [record for share in shares.values() for record in share]
    predictions = iter(predict(model, records))
    scores = {}
    for name, share in shares.items():
        truths = [model.task.truth(record) for record in share]
        scores[name] = model.task.score(truths, list(itertools.islice(predictions, len(share))))
    return Accuracy(scores)
