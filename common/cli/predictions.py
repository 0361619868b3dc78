"""Predictions for lines of texts or of records; a line that cannot be predicted gives its error in its place."""

from collections.abc import Callable
from typing import Any

from confide.common.cli.streams import record_of, text_of
from confide.common.errors import InputError
from confide.common.model.evaluation import answer
from confide.common.model.warm_model import WarmModel

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
        result.append(
            {**found[1], **(prediction or {"error": f"record {number} is not of the form that the task reads"})}
        )
    return result


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


def _answers(model: WarmModel, records: list[dict[str, Any]], extra: Extra) -> list[dict[str, Any] | None]:
    """Return the prediction for each record; None for one on which the task fails, whatever its form is."""
    if not records:
        return []
    try:
        found = zip(records, answer(model, records), strict=True)
        return [{"prediction": prediction, **extra(record, prediction)} for record, prediction in found]
    except Exception:  # noqa: BLE001 - a record may have any form
        if len(records) == 1:
            return [None]
        return [found for record in records for found in _answers(model, [record], extra)]
