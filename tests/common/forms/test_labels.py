"""A label is one label however a file writes it; and no record that could be used before is another one since."""

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from confide.client.data.units import unit_key
from confide.common.data.records import check_records, group_of, read_rows
from confide.common.forms.labels import NamedCode, find_label
from confide.common.tasks import TextClassification

SAME: list[tuple[Any, tuple[str, ...], str | None]] = [
    ("1", ("0", "1"), "1"),
    (1, ("0", "1"), "1"),
    (1.0, ("0", "1"), "1"),
    (Decimal("1.00"), ("0", "1"), "1"),
    (4.5, ("4", "4.5"), "4.5"),
    (1.0, ("1.0", "2.0"), "1.0"),
    (True, ("true", "false"), "true"),
    (False, ("True", "False"), "False"),
    (True, ("0", "1"), None),
    (1, ("true", "false"), None),
    ("True", ("true", "false"), None),
    ("1.0", ("0", "1"), None),
    ("Positive", ("negative", "positive"), None),
    (" positive", ("negative", "positive"), None),
    (None, ("None", "null"), None),
    (float("nan"), ("nan", "0"), None),
    (float("inf"), ("inf", "0"), None),
    (["1"], ("['1']", "1"), None),
    (datetime.date(2026, 1, 1), ("2026-01-01", "x"), None),
    (NamedCode(1, "positive"), ("negative", "positive"), "positive"),
    (NamedCode(1, "positive"), ("0", "1"), "1"),
]


@pytest.mark.parametrize(("value", "labels", "found"), SAME, ids=repr)
def test_a_label_is_found_however_it_is_written(value: Any, labels: tuple[str, ...], found: str | None) -> None:
    assert find_label(value, labels) == found


def test_a_task_reads_numbers_and_truth_values_as_its_labels() -> None:
    task = TextClassification(labels=("0", "1"))
    records = [{"text": "x", "label": label} for label in (0, "0", 0.0, 1, "1", 1.0)]
    assert [task.check(record) for record in records] == [None] * 6
    assert [task.truth(record) for record in records] == ["0"] * 3 + ["1"] * 3
    encoded = [task.examples(record, lambda text, **_: {"input_ids": [1]})[0]["label"] for record in records]
    assert encoded == [0, 0, 0, 1, 1, 1]
    assert TextClassification(labels=("True", "False")).truth({"text": "x", "label": False}) == "False"


def test_what_is_wrong_with_a_label_names_its_kind() -> None:
    task = TextClassification(labels=("0", "1"))
    assert "label true (a truth value: 'true' or 'True', never 1) is not one of" in str(
        task.check({"text": "x", "label": True})
    )
    assert "label ' 1' is not one of ['0', '1']" in str(task.check({"text": "x", "label": " 1"}))
    assert "label 2 ('other') is not one of" in str(task.check({"text": "x", "label": NamedCode(2, "other")}))


def _translated(code: Any, names: dict[str, str]) -> Any:
    return TextClassification(labels=("yes", "no")).translate({"text": "x", "label": code}, names)["label"]


@pytest.mark.parametrize(
    ("code", "label"), [(0, "no"), (0.0, "no"), ("0", "no"), (True, "yes"), ("J18", "J18"), (7, 7)]
)
def test_codes_of_an_institution_are_mapped_however_they_are_written(code: Any, label: Any) -> None:
    assert _translated(code, {"0": "no", "true": "yes"}) == label


def test_a_name_of_a_code_is_mapped_before_the_code_itself() -> None:
    assert _translated(NamedCode(0, "neg"), {"neg": "negative", "0": "other"}) == "negative"
    assert _translated(NamedCode(0, "neg"), {"0": "negative"}) == "negative"


def _class_labels(path: Path) -> Path:
    features = {"label": {"names": ["negative", "positive"], "_type": "ClassLabel"}, "text": {"_type": "Value"}}
    table = pa.table({"text": ["a", "b", "c", "d"], "label": [1, 0, -1, 5], "ward": [0, 1, 0, 1]})
    features["ward"] = features["label"]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def test_the_names_of_class_labels_in_parquet_are_used(tmp_path: Path) -> None:
    rows = read_rows(_class_labels(tmp_path / "x.parquet"))
    task = TextClassification(labels=("negative", "positive"))
    records, _ = check_records(rows[:2], task, 100, "x.parquet")
    assert [task.truth(record) for record in records] == ["positive", "negative"]
    assert [task.check(row) is None for row in rows] == [True, True, False, False]


def test_a_code_with_a_name_keeps_the_unit_that_it_was(tmp_path: Path) -> None:
    """Groups and keys of files that are in use: a key that changed would move a unit from training to validation."""
    row = read_rows(_class_labels(tmp_path / "x.parquet"))[0]
    plain = {"text": "a", "label": 1, "ward": 0}
    assert unit_key(row, b"secret") == unit_key(plain, b"secret")
    assert group_of({"group": row["ward"]}) == group_of({"group": 0}) == "0"
    assert f"{row['ward']}" == "0"


@pytest.mark.parametrize(
    "metadata", [b"\xff", b"[]", b'{"info": 3}', b'{"info": {"features": {"label": {"names": 3}}}}']
)
def test_metadata_that_nobody_can_read_name_nothing(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"text": ["a"], "label": [1]}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "x.parquet")
    assert read_rows(tmp_path / "x.parquet") == [{"text": "a", "label": 1}]


def test_a_label_may_have_the_name_of_a_metric() -> None:
    """scikit-learn's table has one number under "accuracy", and rows called "macro avg"."""
    task = TextClassification(labels=("accuracy", "macro avg", "price"))
    metrics = task.metrics(["accuracy", "price", "price"], ["accuracy", "price", "macro avg"])
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert (metrics["precision/price"], metrics["recall/price"], metrics["f1/accuracy"]) == (1.0, 0.5, 1.0)
    assert metrics["recall/macro mean"] == pytest.approx(0.5)
