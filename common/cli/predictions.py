"""Predictions for lines of texts or of records; a line that cannot be predicted gives its error in its place."""

from collections.abc import Callable
from typing import Any

from confide.common.cli.streams import record_of, text_of
from confide.common.errors import InputError
from confide.common.model.evaluation import answer
from confide.common.model.warm_model import WarmModel
from confide.common.tasks import Task
from confide.common.tasks.task import Record

Extra = Callable[[dict[str, Any], Any], dict[str, Any]]


def nothing(record: dict[str, Any], prediction: Any) -> dict[str, Any]:
    """Add nothing to a prediction."""
    return {}


def predicted(
    model: WarmModel, lines: list[tuple[int, bytes]], *, records: bool, extra: Extra = nothing
) -> list[dict[str, Any]]:
    """Return for each line its text or record with a ``prediction``, or an ``error``.

    Args:
        model: with a finished adapter.
        lines: each with its number, for errors.
        records: True: each line is a record as a JSON object; False: a text.
        extra: gives more fields for a record and its prediction.
    """
    read = [_read(model, line, number, records=records) for number, line in lines]
    good = [found for found in read if not isinstance(found, str)]
    answers = iter(_answers(model, [record for record, _ in good], extra))
    result = []
    for (number, _), found in zip(lines, read, strict=True):
        if isinstance(found, str):
            result.append({"error": found})
            continue
        prediction = next(answers)
        fields = {"error": f"record {number}{prediction}"} if isinstance(prediction, str) else prediction
        result.append({**found[1], **fields})
    return result


def input_fault(task: Task, record: Record) -> str | None:
    """Return the fault of a record's inputs: the one that stands whatever its answers are; None if there is none."""
    others = ({**record, **dict.fromkeys(task.answers(), other)} for other in (None, list[str]()))
    faults = set(map(task.check, others))
    return faults.pop() if len(faults) == 1 else None


def _read(model: WarmModel, line: bytes, number: int, *, records: bool) -> tuple[dict[str, Any], dict[str, Any]] | str:
    """Return a record and what of it is shown, or its fault."""
    try:
        if records:
            record = record_of(line, number, model.task.inputs())
            return record, record
        text = text_of(line, number)
        return model.task.from_text(text), {"text": text}
    except InputError as error:
        return str(error)


def _answers(model: WarmModel, records: list[dict[str, Any]], extra: Extra) -> list[dict[str, Any] | str]:
    """Return the prediction for each record; for one on which the task fails, whatever its form is, the reason."""
    if not records:
        return []
    try:
        found = zip(records, answer(model, records), strict=True)
        return [{"prediction": prediction, **extra(record, prediction)} for record, prediction in found]
    except Exception as error:  # noqa: BLE001 - a record may have any form
        if len(records) == 1:
            fault = str(error) if isinstance(error, InputError) else input_fault(model.task, records[0])
            return [f": {fault}" if fault else " is not of the form that the task reads"]
        return [found for record in records for found in _answers(model, [record], extra)]
