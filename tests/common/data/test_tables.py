"""Tables: columns with one name, saved datasets, and the names of their codes."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from confide.client.training.shares import file_state
from confide.common.data.records import check_records, read_rows, read_usable_rows
from confide.common.errors import InputError
from confide.common.tasks import TextClassification, TokenClassification

TASK = TextClassification(labels=("negative", "positive"))


def _saved(**columns: Any) -> datasets.Dataset:
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    return datasets.Dataset.from_dict(columns, datasets.Features(features))


def test_two_columns_of_one_name_are_named(tmp_path: Path) -> None:
    table = pa.table([pa.array(["a"]), pa.array(["x"]), pa.array(["y"])], names=["text", "label ", "label "])
    pq.write_table(table, tmp_path / "x.parquet")
    for read in (read_rows, read_usable_rows):
        with pytest.raises(InputError, match=r"x.parquet: two columns are called 'label '; rename one"):
            read(tmp_path / "x.parquet")


def test_a_saved_dataset_is_read_with_the_names_of_its_labels(tmp_path: Path) -> None:
    _saved(text=["a", "b", "c"], label=[1, 0, 1]).save_to_disk(tmp_path / "x", num_shards=2)
    for read in (read_rows, read_usable_rows):
        records, _ = check_records(read(tmp_path / "x"), TASK, 100, "x")
        assert [record["text"] for record in records] == ["a", "b", "c"]
        assert [TASK.truth(record) for record in records] == ["positive", "negative", "positive"]


def test_parquet_that_datasets_wrote_is_read_with_the_names_of_its_labels(tmp_path: Path) -> None:
    _saved(text=["a", "b"], label=[1, 0]).to_parquet(tmp_path / "x.parquet")
    assert [TASK.truth(record) for record in read_rows(tmp_path / "x.parquet")] == ["positive", "negative"]


@pytest.mark.parametrize("saved", [True, False], ids=["saved dataset", "Parquet"])
def test_lists_of_class_labels_are_read_with_their_names(tmp_path: Path, saved: bool) -> None:
    """As the hub keeps tags of words."""
    tag = datasets.ClassLabel(names=["O", "B-person"])
    features = datasets.Features({"tokens": [datasets.Value("string")], "tags": [tag]})
    table = datasets.Dataset.from_dict({"tokens": [["Ann", "sat"]], "tags": [[1, 0]]}, features)
    table.save_to_disk(tmp_path / "x") if saved else table.to_parquet(tmp_path / "x.parquet")
    task = TokenClassification(kind="token-classification", labels=("person",))
    [row] = read_rows(tmp_path / ("x" if saved else "x.parquet"))
    assert task.check(row) is None
    assert task.truth(row) == ["B-person", "O"]


def test_splits_are_named(tmp_path: Path) -> None:
    saved = _saved(text=["a"], label=[1])
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(tmp_path / "x")
    with pytest.raises(InputError, match=r"holds the splits 'test', 'train'; name the folder of one of them"):
        read_rows(tmp_path / "x")


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"_data_files": [{"filename": "gone"}]}', '{"_data_files": []}'])
def test_a_saved_dataset_that_is_broken_is_named(tmp_path: Path, state: str) -> None:
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(InputError, match=r"cannot be read|not a saved dataset that can be read"):
        read_rows(tmp_path)


def test_another_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder that Dataset.save_to_disk made; its ending '' must be one of"):
        read_rows(tmp_path)


def test_a_saved_dataset_that_has_changed_is_seen_to_have_changed(tmp_path: Path) -> None:
    """Who takes a record out of it has it out of the next round, as of a file."""
    _saved(text=["a", "b"], label=[1, 0]).save_to_disk(tmp_path / "x")
    before = file_state(tmp_path / "x")
    assert before == file_state(tmp_path / "x") != ""
    _saved(text=["a", "c"], label=[1, 0]).save_to_disk(tmp_path / "x")
    assert file_state(tmp_path / "x") != before
    assert file_state(Path()) == "", "a simulation has no file"
