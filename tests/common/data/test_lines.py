"""Files of lines: fields with line breaks, tabs, gzip. No record decides how another is read."""

import csv
import gzip
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from confide.common.data import lines
from confide.common.data.records import inspect_rows, read_rows, read_usable_rows
from confide.common.errors import InputError

ROWS = [
    {"id": "1", "text": 'Came in with pain.\n\nBetter, "much" better.', "label": "positive"},
    {"id": "2", "text": "short", "label": "negative"},
    {"id": "3", "text": "\n, begins with a line break", "label": "negative"},
]
NAMES = list(ROWS[0])
QUOTING = [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]
fast = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)


def _csv(rows: list[dict[str, Any]], quoting: Any = csv.QUOTE_MINIMAL, ending: str = "\r\n") -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, NAMES, quoting=quoting, lineterminator=ending)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _write(folder: Path, content: str | bytes, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def _texts(path: Path) -> list[str]:
    return [row["text"] for row in read_usable_rows(path)]


def _numbers_of_faults(path: Path) -> list[int]:
    return [number for number, row in lines.inspect_csv(path) if isinstance(row, str)]


# Fields with line breaks


@pytest.mark.parametrize("quoting", QUOTING)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_field_in_quotes_may_hold_line_breaks(tmp_path: Path, quoting: Any, ending: str) -> None:
    path = _write(tmp_path, _csv(ROWS, quoting, ending))
    assert read_rows(path) == read_usable_rows(path) == ROWS


def test_a_record_has_the_number_of_its_first_line(tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[0], "id": "4"}]
    path = _write(tmp_path, _csv(rows, ending="\n"))
    assert [number for number, _ in lines.inspect_csv(path)] == [2, 5, 6, 8]
    with path.open("a") as file:
        file.write("5,too,many,cells\n")
    with pytest.raises(InputError, match=r"x.csv:11: 4 cells, but the header has 3; quote commas in texts"):
        read_rows(path)


texts = st.text('a",\n ', max_size=8)
records = st.lists(st.fixed_dictionaries({"id": st.just("7"), "text": texts, "label": texts}), max_size=6)


@fast
@given(rows=records, quoting=st.sampled_from(QUOTING), ending=st.sampled_from(["\n", "\r\n"]), place=st.integers(0, 6))
def test_a_record_more_changes_no_other_row(
    tmp_path: Path, rows: list[dict[str, str]], quoting: Any, ending: str, place: int
) -> None:
    """The neighbours of the guarantee: two files, of which one has a record more, whatever its text holds."""
    assert read_usable_rows(_write(tmp_path, _csv(rows, quoting, ending))) == rows
    without = rows[:place] + rows[place + 1 :]
    assert read_usable_rows(_write(tmp_path, _csv(without, quoting, ending))) == without


@fast
@given(stray=st.text('a",', max_size=12), place=st.integers(0, 4))
def test_a_line_with_any_quotes_costs_only_itself_where_no_other_has_some(
    tmp_path: Path, stray: str, place: int
) -> None:
    """A program that writes texts as they are, and one person who knows it."""
    plain = [f"{number},text,label" for number in range(4)]
    path = _write(tmp_path, "\n".join(["id,text,label", *plain[:place], stray, *plain[place:]]))
    assert [row for row in read_usable_rows(path) if row["text"] == "text"] == [
        dict(zip(NAMES, line.split(","), strict=True)) for line in plain
    ]


def test_an_open_quote_is_named_and_swallows_no_other_record(tmp_path: Path) -> None:
    head, note = '1,"open,a\n2,kept,b\n', '3,"kept\ntoo",c\n'
    for rest in ("", note, note + note, '4,"""kept""",d\n' + note, '4,"kept, too",d\n'):
        path = _write(tmp_path, "id,text,label\n" + head + rest)
        with pytest.raises(InputError, match=r"x.csv:2: a quote that is never closed"):
            read_rows(path)
        assert "open,a" not in "".join(_texts(path))
        assert _texts(path)[0] == "kept"
        assert len(_texts(path)) == 1 + rest.count("kept")


def test_a_quote_that_another_record_closes_is_named(tmp_path: Path) -> None:
    """A sentence that goes over several records, in a file whose program writes quotes as they are."""
    path = _write(tmp_path, 'text,label\n"I left.,a\nThey stayed.,b\nWe met again.",a\nAll was well.,b\n')
    with pytest.raises(InputError, match=r"x.csv:2: a quote opens a field of several lines here"):
        read_rows(path)


def test_a_doubtful_file_decides_about_no_row_of_a_round(tmp_path: Path) -> None:
    """Else a record that takes the doubt away, by a comma more, would decide how others are read."""
    doubtful = 'text,label\n"a, b\nc, d\ne",positive\n'
    assert _numbers_of_faults(_write(tmp_path, doubtful)) == [2]
    assert _texts(tmp_path / "x.csv") == ["a, b\nc, d\ne"]
    assert _numbers_of_faults(_write(tmp_path, doubtful + '"f, g, h",negative\n')) == []
    assert _texts(tmp_path / "x.csv") == ["a, b\nc, d\ne", "f, g, h"]


@pytest.mark.parametrize("note", ["a, b\nc", "a, b\n\nc", "a\nb, c\nd"])
def test_where_no_line_could_be_another_record_there_is_no_doubt(tmp_path: Path, note: str) -> None:
    path = _write(tmp_path, f'text,label\n"{note}",positive\n')
    assert [row["text"] for row in read_rows(path)] == [note]


def test_the_lines_of_a_broken_record_are_looked_at_alone(tmp_path: Path) -> None:
    path = _write(tmp_path, 'id,text,label\n1,"open,a\n2,kept,b\n3,closed",c,d\n4,kept,e\n')
    found = dict(lines.inspect_csv(path))
    assert found[2] == (
        "a field in quotes goes on to line 4, so the record has 4 cells, but the header has 3; quote commas in texts"
    )
    assert _texts(path) == ["kept", "kept"]


def test_a_quote_within_a_field_is_read_the_same_whatever_stands_beside_it(tmp_path: Path) -> None:
    """An odd one could open a field; whether another line closes it must not decide that."""
    alone, beside = '1,a 5" pipe,x\n', '1,a 5" pipe,x\n2,a 6" pipe,y\n'
    for content in (alone, beside):
        assert _texts(_write(tmp_path, "id,text,label\n" + content)) == []
    assert _texts(_write(tmp_path, 'id,text,label\n1,say "no" twice,x\n')) == ['say "no" twice']


def test_a_cut_file_is_refused_and_gives_nothing_of_its_last_record(tmp_path: Path) -> None:
    content = _csv([*ROWS[1:2], ROWS[0]], ending="\n")
    path = _write(tmp_path, content[: content.index("Better")])
    with pytest.raises(InputError, match=r"x.csv:3: a quote that is never closed"):
        read_rows(path)
    assert _texts(path) == ["short"]


def test_a_record_that_is_not_utf_8_is_one_record(tmp_path: Path) -> None:
    content = _csv(ROWS, ending="\n").encode().replace(b"pain", b"p\xe4in")
    path = _write(tmp_path, content)
    assert _numbers_of_faults(path) == [2]
    assert read_usable_rows(path) == ROWS[1:]


def test_a_header_may_hold_line_breaks(tmp_path: Path) -> None:
    path = _write(tmp_path, '"the\ntext",label\na,b\n')
    assert read_rows(path) == [{"the\ntext": "a", "label": "b"}]


# TSV


def test_a_tsv_has_one_line_for_each_record(tmp_path: Path) -> None:
    path = _write(tmp_path, 'text\tlabel\n"good, ""very"" good"\ta\n5" pipe\tb\n"I left\ta\nWe met"\tb\n', "x.tsv")
    assert _texts(path) == ['good, "very" good', '5" pipe', 'We met"']
    with pytest.raises(InputError, match=r"x.tsv:4: a quote that is never closed on its line; a .tsv has one line"):
        read_rows(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.tsv",
            "text,label\na,b\n",
            r"x.tsv:1: its columns are separated by ',', must be by '\\t'; let its name end",
        ),
        ("x.csv", "text\tlabel\na\tb\n", r"must be by ','; let its name end with .tsv"),
        ("x.tsv", "text;label\na;b\n", r"by ';', must be by '\\t'; type: python -c"),
        ("x.tsv", "text\tlabel\na\tb\tc\n", "x.tsv:2: 3 cells, but the header has 2; quote tabs in texts"),
        ("x.tsv", "text\ttext\na\tb\n", "x.tsv:1: two columns are called 'text'"),
    ],
)
def test_a_tsv_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_rows(_write(tmp_path, content, name))


# Remedies, typed as they stand


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_the_remedy_for_another_encoding_mends_the_file(tmp_path: Path, name: str, encoding: str) -> None:
    """A spreadsheet's UTF-16 is separated by tabs, whatever its name; the encoding is named before that."""
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    begin = '{"text": "plain", "label": "b"}' if name == "x.jsonl" else "text\tlabel\nplain\tb"
    line = '{"text": "schön", "label": "a"}' if name == "x.jsonl" else "schön\ta"
    wrong = _write(tmp_path, f"{mark}{begin}\n{line}\n".encode(encoding), name)
    assert all("but UTF-16" in row for _, row in inspect_rows(wrong)) != (encoding == "cp1252")
    typed = _remedy(wrong, r"not UTF-8.* or type: (iconv .*NEW)")
    right = tmp_path / ("y.tsv" if name == "x.csv" else f"y{wrong.suffix}")
    typed = typed.replace("OLD", wrong.name).replace("NEW", right.name)
    subprocess.run(["/bin/sh", "-c", typed], cwd=tmp_path, check=True)
    assert read_rows(right) == [{"text": "plain", "label": "b"}, {"text": "schön", "label": "a"}]


@pytest.mark.waits  # two processes that import pandas
@pytest.mark.parametrize("name", ["x.csv", "x.json"])
def test_the_remedy_for_another_form_mends_the_file(tmp_path: Path, name: str) -> None:
    rows = [{"text": 'a, "b"; c', "label": "007"}, {"text": "", "label": "NA"}]
    csv_rows = '\ufefftext;label\n"a, ""b""; c";007\n;NA\n'
    wrong = _write(tmp_path, json.dumps(rows) if name == "x.json" else csv_rows, name)
    typed = _remedy(wrong, r"type: python (-c .*\))").replace("OLD", wrong.name)
    subprocess.run(["/bin/sh", "-c", f'{sys.executable} {typed}"'], cwd=tmp_path, check=True)
    assert read_rows(next(tmp_path.glob("NEW.*"))) == rows


def _remedy(path: Path, pattern: str) -> str:
    """Return the command in the refusal of a file."""
    with pytest.raises(InputError, match=pattern) as error:
        read_rows(path)
    return re.findall(pattern, str(error.value))[0]


@pytest.mark.parametrize("name", ["x.xlsx", "x.XLS"])
def test_a_workbook_is_told_how_to_save_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"must be one of .*; in Excel, save it as 'CSV UTF-8'$"):
        read_rows(_write(tmp_path, "PK", name))


# gzip


PACKED = {
    "x.csv.gz": _csv(ROWS).encode(),
    "x.tsv.gz": b"id\ttext\tlabel\n1\ta\tb\n",
    "x.jsonl.gz": b'{"messages": [{"role": "user", "content": "a"}], "tags": ["x"]}\n',
}


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_file_is_read_as_the_file_that_was_packed(tmp_path: Path, name: str) -> None:
    plain = _write(tmp_path, PACKED[name], name.removesuffix(".gz"))
    half = len(PACKED[name]) // 2
    parts = gzip.compress(PACKED[name][:half]) + gzip.compress(PACKED[name][half:])
    for packed in (gzip.compress(PACKED[name]), parts):
        assert read_rows(_write(tmp_path, packed, name)) == read_rows(plain) != []


def test_a_line_of_a_packed_file_is_named_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x.jsonl.gz:2: not a line of JSON"):
        read_rows(_write(tmp_path, gzip.compress(b'{"a": 1}\n{\n'), "x.jsonl.gz"))


@pytest.mark.parametrize("spoil", ["cut", "no gzip", "flipped", "more"])
def test_a_packed_file_that_is_not_whole_is_refused(tmp_path: Path, spoil: str) -> None:
    whole = gzip.compress(json.dumps({"text": os.urandom(500).hex()}).encode() + b"\n")
    flipped = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
    broken = {"cut": whole[:-20], "no gzip": b'{"text": "a"}\n', "flipped": flipped, "more": whole + b"x"}[spoil]
    for read in (read_rows, read_usable_rows):
        with pytest.raises(InputError, match=r"x.jsonl.gz: not a whole gzip file; copy it again"):
            read(_write(tmp_path, broken, "x.jsonl.gz"))


def test_a_packed_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = b'{"text": "' + b"a" * 1_000_000 + b'"}\n'
    path = _write(tmp_path, gzip.compress(line * 3), "x.jsonl.gz")
    assert len(read_rows(path)) == 3, "small enough, whatever the ratio"
    monkeypatch.setattr(lines, "_SMALL", 2_000_000)
    with pytest.raises(InputError, match=r"x.jsonl.gz: unpacks to more than \d+ times its size; .* gunzip"):
        read_rows(path)
    real = "".join(json.dumps({"text": os.urandom(50).hex()}) + "\n" for _ in range(30_000)).encode()
    assert len(read_rows(_write(tmp_path, gzip.compress(real), "x.jsonl.gz"))) == 30_000, "large, but no bomb"


# Nested values


def test_lists_and_objects_of_jsonl_are_plain(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "more": {"x": [1]}}
    path = _write(tmp_path, json.dumps(row) + "\n", "x.jsonl")
    assert read_rows(path) == [row]
    with pytest.raises(InputError, match=r"x.jsonl:1: two values are called 'role'"):
        read_rows(_write(tmp_path, '{"messages": [{"role": "a", "role": "b"}]}\n', "x.jsonl"))
