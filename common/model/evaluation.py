"""Predictions and scores of an adapter on public records."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from confide.common.data.batches import Batch, Example, collate, length, sorted_batches
from confide.common.errors import InputError
from confide.common.generation.language_model import LanguageModel
from confide.common.generation.text_metrics import written_metrics
from confide.common.generation.writing import write as write_texts
from confide.common.model.adapter import set_state
from confide.common.model.scores import Scores
from confide.common.model.warm_model import WarmModel
from confide.common.tensors import State

Records = Sequence[Mapping[str, Any]]
_RECORDS_AT_A_TIME = 4096
_SAMPLES = 10
_MOST_CHARACTERS = 600  # of a text in a sample
_WRITTEN = 200  # records of which a metric of written texts is taken


def require_readable(model: WarmModel, records: Records, source: str) -> None:
    """Check that each record gives the model something, as its tokenizer and chat template render it.

    A head of ours answers every record, also one that would teach nothing.

    Raises:
        InputError: a record does not; the message names the source and its number.
    """
    for number, record in enumerate(() if model.task.own_head else records, start=1):
        if why := model.task.why_no_example(record, model.tokenizer):
            raise InputError(f"{source}: record {number}: {why}")


def predict(model: WarmModel, records: Records, tokens_per_batch: int = 2048) -> list[Any]:
    """Return the model's prediction for each record, in the order of the records.

    Texts of like length share a batch, so a score's last bits can depend on the other records. Memory holds the tokens
    and tensors of at most 4,096 records at a time.
    """
    model.wrapped.disable_hooks()
    predictions: list[Any] = []
    for start in range(0, len(records), _RECORDS_AT_A_TIME):
        predictions += _predict_some(model, records[start : start + _RECORDS_AT_A_TIME], tokens_per_batch)
    return predictions


def _predict_some(model: WarmModel, records: Records, tokens_per_batch: int) -> list[Any]:
    windows = [model.task.examples(record, model.tokenizer) for record in records]
    outputs = of_windows(model, windows, model.task.predict, tokens_per_batch)
    return [model.task.join(record, own) for record, own in zip(records, outputs, strict=True)]


def of_windows(
    model: WarmModel,
    windows: list[list[Example]],
    function: Callable[[nn.Module, Batch], list[Any]],
    tokens_per_batch: int = 2048,
) -> list[list[Any]]:
    """Return the outputs of a function of batches for each record's windows; a window without a token has none."""
    places = [(row, place) for row, own in enumerate(windows) for place, example in enumerate(own) if length(example)]
    examples = [windows[row][place] for row, place in places]
    outputs: list[dict[int, Any]] = [{} for _ in windows]
    with torch.inference_mode():
        for batch in sorted_batches(examples, tokens_per_batch):
            chosen = [examples[position] for position in batch]
            tensors = collate(chosen, length(chosen[-1]), model.pads, model.device)
            for position, output in zip(batch, function(model.module, tensors), strict=True):
                row, place = places[position]
                outputs[row][place] = output
    return [[own[place] for place in sorted(own)] for own in outputs]


def write(model: WarmModel, records: Records) -> list[str]:
    """Return the text that the model writes for each record, greedily; for kinds that write."""
    model.wrapped.disable_hooks()
    task, module = model.task, cast("LanguageModel", model.module)
    prompts = [task.prompt(record, model.tokenizer) for record in records]
    return write_texts(module, model.tokenizer, prompts, model.pad_token_id, task.longest_answer())


def answer(model: WarmModel, records: Records) -> list[Any]:
    """Return for each record what a user wants of it: a label, a score, entities, or a text that the model writes."""
    return _answers(model, [model.task.asked(record) for record in records])


def _answers(model: WarmModel, records: Records) -> list[Any]:
    if model.task.longest_answer():
        return list(write(model, records))
    return [model.task.shown(*pair) for pair in zip(records, predict(model, records), strict=True)]


def all_metrics(model: WarmModel, records: Records) -> dict[str, float]:
    """Return every metric of the task on public records.

    Of a kind that writes, the first 200 records that have a reference are written too, which takes a second or more for
    each.
    """
    return metrics_of(model, records, predict(model, records))


def metrics_of(model: WarmModel, records: Records, predictions: Sequence[Any]) -> dict[str, float]:
    """Return the same of a model's predictions for these records; of a kind that writes it writes."""
    task = model.task
    metrics = task.metrics([task.truth(record) for record in records], predictions)
    referred = [record for record in records if task.reference(record)][:_WRITTEN] if task.longest_answer() else []
    if not referred:
        return metrics
    return metrics | written_metrics([task.reference(record) for record in referred], write(model, referred))


def samples(model: WarmModel, state: State, records: Records) -> list[dict[str, str]]:
    """Return what an adapter answers to up to ten public records, spread over all of them.

    Returns:
        For each the texts ``input``, ``answer`` (of the adapter) and ``right`` (of the record; "" if it has none).
    """
    set_state(model.module, state)
    task, chosen = model.task, records[:: max(1, len(records) // _SAMPLES)][:_SAMPLES]
    found = []
    for record, answered in zip(chosen, _answers(model, chosen), strict=True):  # beside what the record itself says
        own, right = [record[name] for name in task.inputs()], task.shown(record, task.truth(record))
        given = _prompt(model, record) if task.longest_answer() else own
        found.append({"input": _text(given), "answer": _text(answered), "right": _text(right)})
    return found


def _prompt(model: WarmModel, record: Mapping[str, Any]) -> str:
    prompt: str = model.tokenizer.decode(model.task.prompt(record, model.tokenizer), skip_special_tokens=True)
    return prompt


def _text(value: Any) -> str:
    """Return a value as text: a list without brackets around its one text, and numbers with three decimals."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        rounded = json.loads(json.dumps(value), parse_float=lambda text: round(float(text), 3))
        value = json.dumps(rounded, ensure_ascii=False)
    text: str = value
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + " …"


def evaluate(model: WarmModel, state: State, shares: Mapping[str, Records]) -> Scores:
    """Score an adapter on public test shares, by institution. One pass over all: a thousand passes would be slow."""
    set_state(model.module, state)
    records = [record for share in shares.values() for record in share]
    predictions = iter(predict(model, records))
    scores = {}
    for name, share in shares.items():
        truths = [model.task.truth(record) for record in share]
        scores[name] = model.task.score(truths, list(itertools.islice(predictions, len(share))))
    return Scores(model.task.headline, scores)
