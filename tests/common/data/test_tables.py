"""Tables: columns with one name, saved datasets, parts of Parquet, nested values and the names of codes."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from confide.client.training.shares import file_state
from confide.common.data.records import check_records, group_of, inspect_rows, read_rows, read_usable_rows
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


@pytest.mark.parametrize("features", ["deep", {"_type": "ClassLabel", "names": ["a"]}], ids=["deep", "no columns"])
def test_features_of_another_form_are_none(tmp_path: Path, features: Any) -> None:
    """They stand in the metadata of a file, which anybody may write."""
    inner = '{"a":' * 900 + "{}" + "}" * 900 if features == "deep" else json.dumps(features)
    table = pa.table({"text": ["good"]}).replace_schema_metadata({"huggingface": f'{{"info":{{"features":{inner}}}}}'})
    pq.write_table(table, tmp_path / "x.parquet")
    assert read_rows(tmp_path / "x.parquet") == [{"text": "good"}]


def test_class_labels_within_objects_are_read_as_their_names(tmp_path: Path) -> None:
    kind = datasets.ClassLabel(names=["person", "place"])
    part = {"start": datasets.Value("int64"), "end": datasets.Value("int64"), "label": kind}
    features = datasets.Features({"text": datasets.Value("string"), "entities": datasets.List(part)})
    entities = [{"start": 0, "end": 3, "label": 1}, {"start": 4, "end": 7, "label": None}]
    datasets.Dataset.from_dict({"text": ["Ann"], "entities": [entities]}, features).save_to_disk(tmp_path / "x")
    [row] = read_rows(tmp_path / "x")
    assert row["entities"] == [{"start": 0, "end": 3, "label": "place"}, {"start": 4, "end": 7, "label": None}]


def test_several_splits_are_named_and_how_to_name_one(tmp_path: Path) -> None:
    saved = _saved(text=["a"], label=[1])
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(tmp_path / "x")
    message = rf"holds the splits 'test', 'train'; name the folder of one of them, for example {tmp_path}/x/train"
    for read in (read_rows, read_usable_rows):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "x")
    assert [TASK.truth(row) for row in read_rows(tmp_path / "x" / "train")] == ["positive"]


def test_the_only_split_is_read(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": _saved(text=["a"], label=[1])}).save_to_disk(tmp_path / "x")
    assert [TASK.truth(row) for row in read_rows(tmp_path / "x")] == ["positive"]


@pytest.mark.parametrize("splits", ["", "[]", "{}", '{"splits": []}', '{"splits": 3}', '{"splits": [3]}'])
def test_splits_that_cannot_be_read_are_named(tmp_path: Path, splits: str) -> None:
    (tmp_path / "dataset_dict.json").write_text(splits)
    with pytest.raises(InputError, match="not a saved dataset that can be read"):
        read_rows(tmp_path)


@pytest.mark.parametrize("state", ["", "[]", "{}", '{"_data_files": [{"filename": "gone"}]}', '{"_data_files": []}'])
def test_a_saved_dataset_that_is_broken_is_named(tmp_path: Path, state: str) -> None:
    (tmp_path / "state.json").write_text(state)
    with pytest.raises(InputError, match=r"cannot be read|not a saved dataset that can be read"):
        read_rows(tmp_path)


def test_a_folder_without_anything_readable_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("text,label\na,b\n")
    with pytest.raises(InputError, match=r"holds neither a dataset that .* made nor files that end with .parquet"):
        read_rows(tmp_path)


# Parts of Parquet


def _parts(folder: Path, **parts: dict[str, list[Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, columns in parts.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def test_parts_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    folder = _parts(tmp_path / "x", b={"label": ["z"], "text": ["c"]}, a={"text": ["a", "b"], "label": ["x", "y"]})
    (folder / "_SUCCESS").touch()
    (folder / ".a.parquet.crc").touch()
    assert list(inspect_rows(folder)) == [
        (1, {"text": "a", "label": "x"}),
        (2, {"text": "b", "label": "y"}),
        (3, {"text": "c", "label": "z"}),
    ]


def test_parts_may_differ_in_the_types_that_pandas_chose(tmp_path: Path) -> None:
    folder = _parts(tmp_path / "x", a={"group": [1, 2]}, b={"group": [1.0, None]}, c={"group": [None, None]})
    assert [group_of(row) for row in read_rows(folder)] == ["1", "2", "1", None, None, None]


def test_a_part_with_other_columns_is_named(tmp_path: Path) -> None:
    folder = _parts(tmp_path / "x", a={"text": ["a"], "label": ["x"]}, b={"text": ["b"], "code": ["y"]})
    message = r"x/b.parquet: has the columns 'code', 'text', but a.parquet has 'label', 'text'; write all parts with"
    for read in (read_rows, read_usable_rows):
        with pytest.raises(InputError, match=message):
            read(folder)


def test_a_part_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = _parts(tmp_path / "x", a={"text": ["a"]})
    (folder / "b.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-9])
    with pytest.raises(InputError, match=r"x/b.parquet: not a Parquet file that can be read"):
        read_rows(folder)
    content = bytearray((folder / "a.parquet").read_bytes())
    content[4:40] = b"\xff" * 36
    (folder / "b.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"x/b.parquet: cannot be read"):
        read_rows(folder)
    twice = pa.table([pa.array(["a"]), pa.array(["x"])], names=["text", "text"])
    pq.write_table(twice, folder / "b.parquet")
    with pytest.raises(InputError, match=r"x/b.parquet: two columns are called 'text'"):
        read_rows(folder)


@pytest.mark.parametrize("other", ["notes.csv", "README.md", "year=2026", "b.parquet.tmp"])
def test_a_folder_of_parts_and_something_else_is_refused(tmp_path: Path, other: str) -> None:
    folder = _parts(tmp_path / "x", a={"text": ["a"]})
    (folder / other).mkdir() if "=" in other else (folder / other).touch()
    with pytest.raises(InputError, match=rf"x: holds parts of Parquet and '{other}'; name a folder of .parquet files"):
        read_rows(folder)


def test_a_saved_dataset_beside_parts_is_refused(tmp_path: Path) -> None:
    _saved(text=["a"], label=[1]).save_to_disk(tmp_path / "x")
    with pytest.raises(InputError, match=r"x: holds a saved dataset and also 'a.parquet'; keep them in folders of"):
        read_rows(_parts(tmp_path / "x", a={"text": ["a"]}))


def test_parts_of_several_splits_are_refused(tmp_path: Path) -> None:
    """As the hub keeps them: the test records must not be read with those to train on."""
    names = ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001-a09b74b3ef9c3b56"]
    folder = _parts(tmp_path / "x", **{name: {"text": ["a"]} for name in names})
    with pytest.raises(InputError, match="x: holds parts of the splits 'test', 'train'; give each split a folder"):
        read_rows(folder)
    (folder / f"{names[2]}.parquet").unlink()
    assert len(read_rows(folder)) == 2


def test_the_folders_above_a_file_add_no_column(tmp_path: Path) -> None:
    folder = _parts(tmp_path / "year=2026", a={"text": ["a"]})
    assert read_rows(folder) == read_rows(folder / "a.parquet") == [{"text": "a"}]


def test_lists_and_structs_become_plain_lists_and_objects(tmp_path: Path) -> None:
    row = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}],
        "answers": {"text": ["x", "y"], "start": [1, 2]},
        "tags": [],
    }
    for read in (read_rows, read_usable_rows):
        [found] = read(_parts(tmp_path / "x", a={name: [value] for name, value in row.items()}))
        assert json.loads(json.dumps(found)) == found == row


def test_a_saved_dataset_that_has_changed_is_seen_to_have_changed(tmp_path: Path) -> None:
    """Who takes a record out of it has it out of the next round, as of a file."""
    _saved(text=["a", "b"], label=[1, 0]).save_to_disk(tmp_path / "x")
    before = file_state(tmp_path / "x")
    assert before == file_state(tmp_path / "x") != ""
    _saved(text=["a", "c"], label=[1, 0]).save_to_disk(tmp_path / "x")
    assert file_state(tmp_path / "x") != before
    parts = _parts(tmp_path / "parts", a={"text": ["a"]}, b={"text": ["b"]})
    before = file_state(parts)
    (parts / "b.parquet").unlink()
    assert file_state(parts) != before
    assert file_state(Path()) == "", "a simulation has no file"
