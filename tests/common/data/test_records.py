import contextlib
import csv
import datetime
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from confide.common.curation.form import guessed_form
from confide.common.data.records import check_records, group_of, read_public, read_rows, read_usable_rows, select
from confide.common.errors import InputError
from confide.common.tasks import TextClassification

TASK = TextClassification(labels=("negative", "positive"))
ROWS = [{"text": "good, really\u2028good", "label": "positive"}, {"text": 'not "bad"', "label": "negative"}]


def _write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_the_same_rows_come_from_every_kind_of_file(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    jsonl = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n"
    csv = 'text,label\r\n"good, really\u2028good",positive\r\n"not ""bad""",negative\r\n'
    tsv = 'text\tlabel\r\ngood, really\u2028good\tpositive\r\n"not ""bad"""\tnegative\r\n'
    assert read_rows(tmp_path / "x.parquet") == ROWS
    assert read_rows(_write(tmp_path, "x.jsonl", jsonl)) == ROWS
    assert read_rows(_write(tmp_path, "x.csv", csv)) == ROWS
    assert read_rows(_write(tmp_path, "x.tsv", tsv)) == ROWS
    assert read_rows(_write(tmp_path, "x.csv.gz", gzip.compress(csv.encode()))) == ROWS
    assert read_rows(_write(tmp_path, "bom.csv", b"\xef\xbb\xbf" + csv.encode())) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", "a", r"its ending '.txt' must be one of .jsonl, .csv, .tsv \(each also with .gz\) and .parquet"),
        ("x.parquet.gz", "a", r"its ending '.gz' must be one of"),
        ("x.gz", "a", r"its ending '.gz' must be one of"),
        ("x", "a", r"its ending '' must be one of .*, or it must be a folder that is there"),
        ("x.jsonl", "", "holds no records"),
        ("x.csv", "text,label\n", "holds no records"),
        ("x.jsonl", '{"a": 1}\n{"a": \n', "x.jsonl:2: not a line of JSON"),
        ("x.jsonl", "[" * 100_000, "x.jsonl:1: not a line of JSON"),
        ("x.jsonl", '{"a": 1}\n[1]\n', "x.jsonl:2: a JSON list, must be an object"),
        ("x.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "x.jsonl:2: not UTF-8"),
        ("x.csv", 'a,b\n1,"2\n3\n', "x.csv:2: a quote that is never closed"),
        ("x.csv", '"', "x.csv:1: a quote that is never closed; .*; without its header no line can be read"),
        ("x.csv", '"a,b\n1,2\n', "x.csv:1: a quote that is never closed; .*; without its header no line can be read"),
        ("x.csv", "a,b\n1,2\n1,2,3\n", "x.csv:3: 3 cells, but the header has 2"),
        ("x.csv", 'a,b\n"1" 2,3\n', "x.csv:2: text after a closing quote; write a quote inside of a field twice"),
        ("x.csv", 'text;label\n"a, b";c\n', "x.csv:1: its columns are separated by ';', must be by ','"),
        ("x.csv", '"text";"label"\n"a";"c"\n', "x.csv:1: its columns are separated by ';', must be by ','"),
        ("x.csv", "text\tlabel\na\tb\n", r"x.csv:1: its columns are separated by '\\t', must be by ','"),
        ("x.csv", "sep=;\ntext;label\na;b\n", "x.csv:1: its columns are separated by ';'"),
        ("x.jsonl", '{"a": 1, "b ": 2, "b ": 3}\n', "x.jsonl:1: two values are called 'b '; remove one"),
        ("x.parquet", "no parquet", "not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_rows(_write(tmp_path, name, content))


@pytest.mark.parametrize("name", ["none.jsonl", "none.parquet", "none.csv.gz"])
def test_an_absent_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: cannot be read: No such file"):
        read_rows(tmp_path / name)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv", ".csv.gz", ".parquet"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode),
    prefix=st.sampled_from([b"", b"a,b\n", b"a\tb\n", b"\x1f\x8b\x08\0\0\0\0\0\0\3", b"PAR1"]),
)
def test_no_bytes_of_a_file_can_do_more_than_be_refused(
    tmp_path: Path, ending: str, content: bytes, prefix: bytes
) -> None:
    with contextlib.suppress(InputError):
        read_rows(_write(tmp_path, f"x{ending}", prefix + content + (prefix if ending == ".parquet" else b"")))


def test_columns_are_renamed_to_ours() -> None:
    rows = [{"note": "good", "code": "positive", "more": 1}]
    assert select(rows, {"text": "note", "label": "code"}, "x.csv") == [{"text": "good", "label": "positive"}]


def test_columns_of_any_length_and_number_make_a_short_line(tmp_path: Path) -> None:
    """A file without a header has its first record in the place of one."""
    wide = {f"{number} {'x' * 1000}": "a" for number in range(1000)}
    twice = _write(tmp_path, "x.csv", f"{'x' * 1000},{'x' * 1000}\na,b\n")
    for refused in (
        lambda: select([wide], {"text": "text"}, "x"),
        lambda: read_rows(twice),
        lambda: guessed_form(wide.keys(), {}, "x"),
    ):
        with pytest.raises(InputError) as error:
            refused()
        assert len(str(error.value).removeprefix(str(tmp_path))) < 400


def test_a_column_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"x.csv: record 2 has no column 'note' .*; it has: 'code', 'more '"):
        select([{"note": "x"}, {"code": 1, "more ": 2}], {"text": "note"}, "x.csv")


def test_texts_are_cut_to_the_limit_and_counted() -> None:
    records, warnings = check_records([{"text": "good" * 5, "label": "positive"}, *ROWS], TASK, 15, "x.csv")
    assert [len(record["text"]) for record in records] == [15, 15, 9]
    assert warnings == ["x.csv: 2 texts are longer than 15 characters and were cut"]
    assert check_records(ROWS, TASK, 100, "x.csv") == (ROWS, [])


def test_groups_stay_whole() -> None:
    """Two patients whose long names begin alike would be one unit, and each of them could be removed from it."""
    rows = [{"text": "good film", "label": "positive", "group": f"patient/{number}"} for number in range(2)]
    records, warnings = check_records(rows, TASK, 8, "x.csv")
    assert [(record["text"], record["group"]) for record in records] == [
        ("good fil", "patient/0"),
        ("good fil", "patient/1"),
    ]
    assert warnings == ["x.csv: 2 texts are longer than 8 characters and were cut"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "  "}, "record 2: text is empty"),
        ({"text": None}, "record 2: text is empty"),
        ({"text": float("nan")}, "record 2: text is empty"),
        ({"text": datetime.date(2026, 1, 1)}, "record 2: text is a date, must be a string"),
        ({"text": 6}, "record 2: text is a number, must be a string"),
        ({"text": 6.5}, "record 2: text is a number, must be a string"),
        ({"text": True}, "record 2: text is a truth value, must be a string"),
        ({"text": ["a"]}, "record 2: text is a list, must be a string"),
        ({"text": {}}, "record 2: text is an object, must be a string"),
        ({"label": "neutral"}, r"record 2: label 'neutral' is not one of \['negative', 'positive'\]"),
        ({"label": None}, "record 2: label None is not one of"),
        ({"label": ["positive"]}, "record 2: label"),
    ],
)
def test_a_record_that_the_task_cannot_use_is_named(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_records([ROWS[0], {**ROWS[1], **change}], TASK, 100, "x.csv")


def test_a_refusal_names_the_line_and_counts_the_other_faults(tmp_path: Path) -> None:
    begin = "text,label\n\na,positive\nb,so-so\n"
    path = _write(tmp_path, "my notes.csv", begin)
    with pytest.raises(InputError, match=r"my notes.csv:4: label 'so-so' is not one of .*; mend it or .* task.labels$"):
        read_public(path, TASK)
    for more, words in (("c,\n", "1 more record has"), ("c,\n ,positive\n", "2 more records have")):
        with pytest.raises(InputError) as error:
            read_public(_write(tmp_path, "my notes.csv", begin + more), TASK)
        remedy = f"; {words} a fault; `confide data check '{path}' --run RUN.toml` names them all"
        assert str(error.value).endswith(remedy)


def test_records_of_no_file_are_named_by_their_number() -> None:
    bad = [{"text": "", "label": "positive"}] * 3
    with pytest.raises(InputError, match=r"^records: record 3: text is empty.*; 2 more records have a fault$"):
        check_records([*ROWS, *bad], TASK, 100, "records")


# Rows that can be read, each for itself: what a client reads in the rounds of a run

WELL_FORMED: dict[str, tuple[str, bytes]] = {
    "jsonl": ("x.jsonl", b'{"text": "a"}\n{"text": "b"}\n'),
    "jsonl of Windows": ("x.jsonl", b'{"text": "a"}\r\n{"text": "b"}\r\n'),
    "jsonl with a mark": ("x.jsonl", b'\xef\xbb\xbf{"text": "a"}\n'),
    "jsonl with blanks": ("x.jsonl", b'\n \n{"text": "a"}\n\n{"text": "b"}'),
    "csv": ("x.csv", b'text,label\n"a, ""b""",c\n'),
    "csv of Windows": ("x.csv", b"text,label\r\na,b\r\n"),
    "csv with a mark": ("x.csv", b"\xef\xbb\xbftext,label\na,b\n"),
    "csv with blanks": ("x.csv", b"text,label\n\na,b\n \n"),
}
LOST: dict[str, tuple[str, bytes]] = {
    "csv after a blank line": ("x.csv", b"\ntext,label\na,b\n"),
    "csv of an old Macintosh": ("x.csv", b"text,label\ra,b\r"),
    "jsonl of an old Macintosh": ("x.jsonl", b'{"text": "a"}\r{"text": "b"}\r'),
    "a long field": ("x.csv", b"text,label\n" + b"a" * 200_000 + b",b\n"),
}


@pytest.mark.parametrize(("name", "content"), WELL_FORMED.values(), ids=WELL_FORMED)
def test_of_a_whole_file_every_row_is_usable(tmp_path: Path, name: str, content: bytes) -> None:
    path = _write(tmp_path, name, content)
    assert read_usable_rows(path) == read_rows(path)


@pytest.mark.parametrize(("name", "content"), LOST.values(), ids=LOST)
def test_of_a_whole_file_every_row_is_usable_however_it_is_written(tmp_path: Path, name: str, content: bytes) -> None:
    path = _write(tmp_path, name, content)
    csv.field_size_limit(131_072)  # as in a process that has just begun
    usable = read_usable_rows(path)
    assert usable == read_rows(path)


@pytest.mark.parametrize("bad", [b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b"null", b"\0", b'"text"'])
def test_a_broken_line_costs_no_other_row(tmp_path: Path, bad: bytes) -> None:
    path = _write(tmp_path, "x.jsonl", b'{"text": "a"}\n' + bad + b'\n{"text": "b"}\n')
    assert read_usable_rows(path) == [{"text": "a"}, {"text": "b"}]
    table = _write(tmp_path, "x.csv", b"text,label\na,b\n" + bad + b',"never closed\nc,d\n')
    assert [row["text"] for row in read_usable_rows(table)] == ["a", "c"]


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet"])
def test_who_takes_all_records_out_has_all_of_them_out(tmp_path: Path, name: str) -> None:
    path = _write(tmp_path, name, b"text,label\n" if name == "x.csv" else b"")
    if name == "x.parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}), path)
    assert read_usable_rows(path) == []


ODD: dict[str, pa.Array] = {
    "days after the year 9999": pa.array([0, 2**31 - 1, 1], pa.int32()).view(pa.date32()),
    "moments after the year 9999": pa.array([0, 2**62, 1], pa.timestamp("us")),
    "texts that are not UTF-8": pa.array([b"a", b"\xff", b"c"]).view(pa.string()),
    "a time zone that nobody knows": pa.array([0, 1, 2], pa.timestamp("us", tz="Mars/Base")),
}


@pytest.mark.parametrize("name", ODD)
def test_a_value_that_python_cannot_hold_costs_no_other(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c"], "more": ODD[name]}), path)
    for rows in (read_usable_rows(path), read_rows(path)):
        assert [row["text"] for row in rows] == ["a", "b", "c"]
        assert rows[1]["more"] is None
        assert name.startswith("a time zone") or None not in (rows[0]["more"], rows[2]["more"])


def test_a_parquet_file_whose_columns_have_no_readable_name_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"naïve": ["a"]}), tmp_path / "x.parquet")
    content = (tmp_path / "x.parquet").read_bytes().replace("ï".encode(), b"\xff\xff")
    with pytest.raises(InputError, match=r"x.parquet: not a Parquet file"):
        read_usable_rows(_write(tmp_path, "x.parquet", content))


@given(content=st.binary(max_size=80))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_file_can_do_more_than_lose_its_rows(tmp_path: Path, content: bytes) -> None:
    for name in ("x.jsonl", "x.csv", "x.tsv"):
        assert isinstance(read_usable_rows(_write(tmp_path, name, content)), list)


def test_a_line_that_joining_refuses_is_left_out_of_rounds(tmp_path: Path) -> None:
    """Two readers of one format once disagreed: what was refused before a run was trained on during it."""
    twice = _write(tmp_path, "x.jsonl", b'{"a": 1, "a": 2}\n{"a": 3}\n{"a": "\xff"}\n')
    assert read_usable_rows(twice) == [{"a": 3}]
    assert read_usable_rows(_write(tmp_path, "x.csv", "text,text\na,b\n")) == []


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ((17, 17.0, "17", Decimal(17), Decimal("17.00")), "17"),
        ((17.5, "17.5", Decimal("17.50")), "17.5"),
        ((Decimal("12345678901234567.25"),), "12345678901234567.25"),
        ((100, Decimal("1E+2"), Decimal(100)), "100"),
    ],
)
def test_a_number_is_one_person_however_a_file_keeps_it(groups: tuple[Any, ...], text: str) -> None:
    """An export of a database has decimals, with two digits after the point."""
    assert {group_of({"group": group}) for group in groups} == {text}
