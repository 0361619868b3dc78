"""Predictions for lines of texts or of records; a line that cannot be predicted gives its error in its place."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from confide.common.cli.streams import record_of, text_of
from confide.common.errors import InputError
from confide.common.forms.texts import text_problem
from confide.common.model.evaluation import answer
from confide.common.model.warm_model import WarmModel
from confide.common.shown import shown
from confide.common.tasks import Task
from confide.common.tasks.task import Record

Extra = Callable[[dict[str, Any], Any], dict[str, Any] | str]  # more fields, or a text in place of all
Columns = Mapping[str, str] | None


class Line(NamedTuple):
    """The answer to a line.

    Attributes:
        content: its text or record with a ``prediction`` or an ``error``; or a text in place of all that.
        failed: True: it could not be predicted.
    """

    content: dict[str, Any] | str
    failed: bool = False


def nothing(record: dict[str, Any], prediction: Any) -> dict[str, Any]:
    """Add nothing to a prediction."""
    return {}


def predicted(
    model: WarmModel, lines: list[tuple[int, bytes]], columns: Columns, extra: Extra = nothing
) -> Iterator[Line]:
    """Yield the answer to each line as soon as it has its further fields: an explanation takes many passes.

    Args:
        model: with a finished adapter.
        lines: each with its number, for errors.
        columns: each line is a record as a JSON object with these columns, by our names for them; None: it is a text.
        extra: gives more fields for a record and its prediction, or a text in place of them.
    """
    read = [_read(model, line, number, columns) for number, line in lines]
    answers = iter(_answers_of_full(model, [found[0] for found in read if not isinstance(found, str)]))
    for (number, _), found in zip(lines, read, strict=True):
        if isinstance(found, str):
            yield Line({"error": found}, failed=True)
        else:
            yield _line(number, found, next(answers), extra)


def _line(number: int, found: tuple[dict[str, Any], dict[str, Any]], answered: "_Answer", extra: Extra) -> Line:
    """Return the answer to a line from its record, from what of it is shown, and from its prediction."""
    record, own = found
    why = answered.fault
    if not why:
        try:
            more = extra(record, answered.prediction)
            return Line(more if isinstance(more, str) else {**own, "prediction": answered.prediction, **more})
        except Exception as error:  # noqa: BLE001 - a record may have any form
            why = f" cannot be explained ({type(error).__name__}: {shown(error, 100)})"
    return Line({**own, "error": f"record {number}{why}"}, failed=True)


def input_fault(task: Task, record: Record) -> str | None:
    """Return the fault of a record's inputs: the one that stands whatever its answers are; None if there is none."""
    others = ({**record, **dict.fromkeys(task.answers(), other)} for other in (None, list[str]()))
    faults = set(map(task.check, others))
    return faults.pop() if len(faults) == 1 else None


def _read(model: WarmModel, line: bytes, number: int, columns: Columns) -> tuple[dict[str, Any], dict[str, Any]] | str:
    """Return a record and what of it is shown, or its fault."""
    try:
        if columns is not None:
            record = record_of(line, number, columns)
            return {**record, **{name: record[column] for name, column in columns.items()}}, record
        text = text_of(line, number)
        return model.task.from_line(text), {"text": text}
    except InputError as error:
        return str(error)


class _Answer(NamedTuple):
    prediction: Any
    fault: str = ""


def _answers_of_full(model: WarmModel, records: list[dict[str, Any]]) -> list[_Answer]:
    """Return the prediction for each record; for one with an empty input its fault, for a model would answer it too."""
    faults = [_empty_input(model.task, record) for record in records]
    answers = iter(_answers(model, [record for record, fault in zip(records, faults, strict=True) if not fault]))
    return [_Answer(None, f": {fault}") if fault else next(answers) for fault in faults]


def _empty_input(task: Task, record: Record) -> str | None:
    """Return the fault of a record of which an input is empty; None if none is."""
    empty = next((name for name in task.inputs() if _is_empty(record[name])), None)
    return empty and (input_fault(task, record) or text_problem("", empty))


def _is_empty(value: Any) -> bool:
    """Return whether a text is empty or blank, or a list (of words, candidates, messages) holds no other."""
    parts = value if isinstance(value, list) else [value]
    texts = [part.get("content") if isinstance(part, dict) else part for part in parts]
    return all(isinstance(text, str) and not text.strip() for text in texts)


def _answers(model: WarmModel, records: list[dict[str, Any]]) -> list[_Answer]:
    """Return the prediction for each record; for one on which the task fails, whatever its form is, the reason."""
    if not records:
        return []
    try:
        return list(map(_Answer, answer(model, records)))
    except Exception as error:  # noqa: BLE001 - a record may have any form
        if len(records) == 1:
            return [_Answer(None, _fault(model.task, records[0], error))]
        return [found for record in records for found in _answers(model, [record])]


def _fault(task: Task, record: Record, error: Exception) -> str:
    """Return why a record is not predicted: its form, or something of the machine (a full GPU)."""
    if known := str(error) if isinstance(error, InputError) else input_fault(task, record):
        return f": {known}"
    if isinstance(error, RuntimeError | MemoryError | OSError):
        return f" cannot be predicted ({type(error).__name__}: {shown(error, 100)})"
    return " is not of the form that the task reads"
