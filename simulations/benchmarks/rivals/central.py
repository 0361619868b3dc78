"""Central training as users write it today: the Hugging Face Trainer on all records, with our module, loss and adapter.

It takes the same number of steps, over as many records in each as all institutions draw together, and begins with the
same learning rate, which falls linearly, also where a federation holds it. All else is the Trainer's default.
"""

import tempfile
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from confide.common.config.run import RunConfig
from confide.common.data.batches import Batch, Example, collate, length, padded_length, sorted_batches
from confide.common.data.records import Record
from confide.common.model.adapter import get_state, reset
from confide.common.model.warm_model import PREFIX, WarmModel, warm_model
from confide.common.tensors import State

_ROWS, _TOKENS = 64, 2048  # of a forward pass


class _Loss(nn.Module):
    """Our module with its loss, as the Trainer wants it: one value for a batch."""

    def __init__(self, model: WarmModel) -> None:
        super().__init__()
        self.module, self._model = model.module, model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the mean of the examples' losses."""
        if self._model.lower is None:
            return {"loss": self._model.task.losses(self.module, batch).mean()}
        with self._model.lower.given(batch[PREFIX]):
            return {"loss": self._model.task.losses(self.module, batch).mean()}


def train_centrally(run: RunConfig, records: list[Record]) -> State:
    """Return the adapter that the Trainer reaches on these records."""
    model = warm_model(run, run.speed)
    reset(model.module, run.study.seed)
    model.wrapped.disable_hooks()
    rows = _rows(model, records)
    passes = max(1, round(run.local.sampling_probability * len(rows) / _ROWS))
    with tempfile.TemporaryDirectory() as output:
        settings = transformers.TrainingArguments(
            output,
            max_steps=run.num_steps,
            per_device_train_batch_size=_ROWS,
            gradient_accumulation_steps=passes,
            learning_rate=run.federation.learning_rate,
            seed=run.study.seed,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            log_level="error",
        )
        learner = transformers.Trainer(
            _Loss(model), settings, train_dataset=rows, data_collator=lambda chosen: {"batch": _collate(model, chosen)}
        )
        learner.remove_callback(transformers.trainer_callback.PrinterCallback)  # standard output is for figures
        learner.train()
    return get_state(model.module)


def _rows(model: WarmModel, records: list[Record]) -> Any:
    """Return the examples of all records, with the output of the frozen lower layers: computed once, as in our step."""
    found = [model.task.examples(record, model.tokenizer) for record in records]
    examples = [example for own in found for example in own if length(example)]
    if model.lower is None:
        return examples
    rows: list[Example] = []
    for chosen in sorted_batches(examples, _TOKENS):
        some = [examples[place] for place in chosen]
        states = model.prefix(collate(some, padded_length(length(some[-1])), model.pads, model.device))
        rows += [{**own, PREFIX: state[: length(own)]} for own, state in zip(some, states, strict=True)]
    return rows


def _collate(model: WarmModel, rows: list[Example]) -> Batch:
    size = padded_length(max(len(row["input_ids"]) for row in rows))
    plain = [{name: value for name, value in row.items() if name != PREFIX} for row in rows]
    batch = collate(plain, size, model.pads, model.device)
    if PREFIX in rows[0]:
        kept = torch.nn.utils.rnn.pad_sequence([row[PREFIX] for row in rows], batch_first=True)
        batch[PREFIX] = nn.functional.pad(kept, (0, 0, 0, size - kept.shape[1])).to(torch.float32)
    return batch
