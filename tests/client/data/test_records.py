"""An institution's records are the same people in every shape of file, before a run is joined and in its rounds."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.installations import write_site

from confide.client.config import DatasetSection, load_site_config
from confide.client.data.line_check import check_lines
from confide.client.data.records import check_file, read_records
from confide.client.data.units import names_of, unit_key
from confide.common.errors import InputError
from confide.common.tasks import TextClassification

TASK = TextClassification(labels=("negative", "positive"))
LABELS = {"good": "positive", "bad": "negative"}
NOTES = [
    {"note": 'Came in with pain.\n\nLeft, "much" better.', "code": "good", "patient": "17"},
    {"note": "No better; returned\nthe next day, and again", "code": "bad", "patient": "18"},
    {"note": "One line.", "code": "bad", "patient": "17"},
]


def _csv(path: Path, delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(NOTES[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(NOTES)


def _jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in NOTES), encoding="utf-8")


def _parts(folder: Path) -> None:
    folder.mkdir()
    for number, row in enumerate(NOTES):
        pq.write_table(pa.Table.from_pylist([row]), folder / f"part-{number}.parquet")


def _packed(path: Path) -> None:
    plain = path.with_suffix("")
    _csv(plain) if plain.suffix == ".csv" else _jsonl(plain)
    path.write_bytes(gzip.compress(plain.read_bytes()))


def _saved() -> datasets.Dataset:
    features = datasets.Features({name: datasets.Value("string") for name in NOTES[0]})
    features["code"] = datasets.ClassLabel(names=["bad", "good"])
    columns = {name: [row[name] for row in NOTES] for name in NOTES[0]}
    return datasets.Dataset.from_dict(columns, features)


SHAPES: dict[str, Any] = {
    "x.jsonl": _jsonl,
    "x.csv": _csv,
    "x.csv.gz": _packed,
    "x.jsonl.gz": _packed,
    "x.parquet": lambda path: pq.write_table(pa.Table.from_pylist(NOTES), path),
    "parts": _parts,
    "saved": lambda path: _saved().save_to_disk(path),
    "splits": lambda path: datasets.DatasetDict({"train": _saved()}).save_to_disk(path),
    "splits/train": lambda path: datasets.DatasetDict({"train": _saved(), "test": _saved()}).save_to_disk(path.parent),
}


def _dataset(folder: Path, name: str, **dataset: Any) -> DatasetSection:
    columns = {"text": "note", "label": "code", "group": "patient"}
    given = {"path": name, "columns": columns, "labels": LABELS, "unit": "group", **dataset}
    return load_site_config(write_site(folder, dataset=given)).dataset


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_holds_the_same_people_with_the_same_answers(tmp_path: Path, name: str) -> None:
    dataset, secret = _dataset(tmp_path, name), bytes(32)
    SHAPES[name](tmp_path / name)
    check_file(dataset, TASK)
    records = read_records(dataset, TASK)
    wanted = [{"text": row["note"], "group": row["patient"]} for row in NOTES]
    assert [{name: record[name] for name in ("text", "group")} for record in records] == wanted
    assert [TASK.truth(record) for record in records] == [LABELS[row["code"]] for row in NOTES]
    assert [unit_key(record, secret) for record in records] == [unit_key(row, secret) for row in wanted]
    assert [names_of(record, TASK, secret) for record in records] == [names_of(row, TASK, secret) for row in wanted]
    found = check_lines(dataset, [], Path())
    assert (found.num_lines, found.broken) == (len(NOTES), {})


BROKEN: dict[str, Any] = {
    "x.csv": lambda path: path.write_text(path.read_text().replace('better."', "better.")),
    "x.csv.gz": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "parts": lambda path: (path / "part-3.csv").touch(),
    "splits": lambda path: (path / "train" / "state.json").unlink(),
}


@pytest.mark.parametrize("name", BROKEN)
def test_no_run_is_joined_with_a_shape_that_is_broken(tmp_path: Path, name: str) -> None:
    dataset = _dataset(tmp_path, name)
    SHAPES[name](tmp_path / name)
    BROKEN[name](tmp_path / name)
    with pytest.raises(InputError, match=str(tmp_path / name)):
        check_file(dataset, TASK)
