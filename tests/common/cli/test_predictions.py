"""Predictions of lines: a record's own columns are never taken for marks of ours, and a fault is told as it is."""

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.kinds import RECORDS, SETTINGS, task_of

from confide.common.cli import predictions, streams
from confide.common.cli.adapters import _print
from confide.common.cli.predictions import nothing, predicted
from confide.common.cli.streams import arriving
from confide.common.errors import InputError
from confide.common.model.warm_model import WarmModel

COLUMNS = {"text": "text"}
GOOD, BAD = b'{"text": "good"}', b'{"text": "bad"}'


class Task:
    """A kind of task that reads texts, and finds no fault."""

    def inputs(self) -> tuple[str, ...]:
        return ("text",)

    def answers(self) -> tuple[str, ...]:
        return ()

    def check(self, record: dict[str, Any]) -> None:
        return None


class Model:
    task = Task()


MODEL = cast("WarmModel", Model())


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], None]:
    """``answering(error)``: a model that fails with it on a batch with a bad record."""

    def set_up(error: Exception | None) -> None:
        def answer(model: WarmModel, records: list[dict[str, Any]]) -> list[str]:
            if error and any(record["text"] == "bad" for record in records):
                raise error
            return ["positive"] * len(records)

        monkeypatch.setattr(predictions, "answer", answer)

    return set_up


def test_a_line_is_read_as_the_kind_reads_lines_and_shown_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(predictions, "answer", lambda _, records: [asked.append(record) for record in records])
    model = cast("WarmModel", SimpleNamespace(task=task_of("seq2seq")))
    [line] = predicted(model, [(1, rb'"the film\n"')], None)
    assert asked == [{"source": "the film\n"}]
    assert line.content == {"text": r'"the film\n"', "prediction": None}


def test_a_blank_line_of_records_has_no_answer_but_a_number(
    answering: Callable[[Exception | None], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answering(None)
    parts = [[GOOD, b"", b" \t"], [b"", b"{", GOOD]]
    assert _print(MODEL, parts, nothing, COLUMNS) == ("predict: 1 of 3 lines could not be predicted; each says why")
    first, wrong, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert wrong == {"error": "record 5 is no JSON object; write one on each line, with text"}
    assert first == last == {"text": "good", "prediction": "positive"}


def test_an_empty_line_of_texts_has_an_error_in_its_place(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(predictions, "answer", lambda _, records: [len(record["source"]) for record in records])
    model = cast("WarmModel", SimpleNamespace(task=task_of("seq2seq")))
    assert _print(model, [[b"good", b"", b"bad"]], nothing, None).startswith("predict: 1 of 3 lines could not be")
    first, empty, last = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert [first["prediction"], last["prediction"]] == [4, 3]
    assert "source is empty" in empty["error"]


def test_a_column_of_any_name_comes_back_with_a_prediction(
    answering: Callable[[Exception | None], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answering(None)
    rows = [{"text": "a", "error": 404}, {"text": "b", "shown": "yes"}]
    assert _print(MODEL, [[json.dumps(row).encode() for row in rows]], nothing, COLUMNS) == ""
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert printed == [{**row, "prediction": "positive"} for row in rows]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("CUDA out of memory"), "record 2 cannot be predicted (RuntimeError: CUDA out of memory)"),
        (TypeError("no text"), "record 2 is not of the form that the task reads"),
    ],
)
def test_a_full_gpu_is_not_called_the_record_s_fault(
    answering: Callable[[Exception | None], None], error: Exception, words: str
) -> None:
    answering(error)
    good, bad = predicted(MODEL, [(1, GOOD), (2, BAD)], COLUMNS)
    assert good == ({"text": "good", "prediction": "positive"}, False)
    assert bad == ({"text": "bad", "error": words}, True)


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_empty_input_is_an_error_as_a_missing_one_is(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model would answer it: a head of ours gives every text a label."""
    monkeypatch.setattr(predictions, "answer", lambda _, records: ["answered"] * len(records))
    task = task_of(kind)
    model, columns = cast("WarmModel", SimpleNamespace(task=task)), {name: name for name in task.inputs()}
    good = {name: RECORDS[kind][0][name] for name in columns}
    for name in columns:
        for empty in ("", " \t", [], [{"role": "user", "content": " "}], ["", " "]):
            records = [good, {**good, name: empty}, good]
            lines = [(number, json.dumps(record).encode()) for number, record in enumerate(records, start=1)]
            first, wrong, last = predicted(model, lines, columns)
            assert (first, last) == (({**good, "prediction": "answered"}, False),) * 2
            assert wrong.failed
            assert isinstance(wrong.content, dict)
            assert re.match(r"record 2: .*(is empty|must be|must both be)", wrong.content["error"])
    if len(columns) == 1:
        assert [line.failed for line in predicted(model, [(1, b""), (2, b" \r")], None)] == [True, True]


def test_an_explanation_that_fails_costs_its_own_line_alone(answering: Callable[[Exception | None], None]) -> None:
    """And the others are explained once: a page would list them twice."""
    answering(None)
    explained = list[str]()

    def extra(record: dict[str, Any], prediction: Any) -> str:
        if record["text"] == "bad":
            raise RuntimeError("too long")
        explained.append(record["text"])
        return "explained"

    good, bad = predicted(MODEL, [(1, GOOD), (2, BAD)], COLUMNS, extra)
    assert (good, explained) == (("explained", False), ["good"])
    assert bad == ({"text": "bad", "error": "record 2 cannot be explained (RuntimeError: too long)"}, True)


def test_each_answer_is_given_before_the_next_is_explained(answering: Callable[[Exception | None], None]) -> None:
    answering(None)
    explained = list[str]()
    lines = predicted(MODEL, [(1, GOOD), (2, BAD)], COLUMNS, lambda record, _: explained.append(record["text"]) or "")
    next(lines)
    assert explained == ["good"]
    next(lines)
    assert explained == ["good", "bad"]


def test_a_file_that_is_not_there_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        arriving(tmp_path / "typo.jsonl")


def test_a_closed_standard_input_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing where a file is named."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="there is no standard input"):
        arriving(Path("-"))
    (tmp_path / "texts").write_text("good", encoding="utf-8")
    assert list(arriving(tmp_path / "texts")) == [[b"good"]]


def test_a_line_of_any_length_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An array of JSON has no line end at all; joined part by part, 500 MB took 25 minutes."""
    joined = list[int]()

    class Part(bytes):
        def __radd__(self, other: bytes) -> bytes:
            joined.append(len(other))
            return bytes(other) + bytes(self)

    class Stream(io.BufferedReader):
        def read1(self, size: int = -1, /) -> bytes:
            return Part(super().read1(size))

    monkeypatch.setattr(streams, "_BYTES", 2)
    lines = list(streams._lines(Stream(io.BytesIO(b"abcdefg\r\n\nh\nijklm"))))  # type: ignore[arg-type]
    assert [line for part in lines for line in part] == [b"abcdefg", b"", b"h", b"ijklm"]
    assert joined == []
