"""`confide data check`, as it is typed."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest
from support.families import save_tiny
from support.installations import write_site

Confide = Callable[..., tuple[int, str, str]]
ROWS = [{"note": f"the staff was kind {number} times", "code": "positive", "patient": number} for number in range(9)]
RUN = """
[study]
name = "test"
[model]
base = "{base}"
[task]
labels = ["negative", "positive"]
max_length = 8
[simulation]
data = "notes.jsonl"
columns = {{ text = "note", label = "code" }}
"""


@pytest.fixture
def confide(confide_data: Confide) -> Confide:
    return partial(confide_data, "check")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path: Path, base_folder: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(RUN.format(base=base_folder), encoding="utf-8")
    return path


def test_a_run_gives_kind_columns_and_base(confide: Confide, notes: Path, run: Path) -> None:
    code, output, errors = confide(notes, "--run", run)
    assert (code, errors) == (0, "")
    assert "task.kind: text-classification" in output
    assert "  text <- note\n  label <- code\n" in output
    assert "  3  text: the staff was kind 2 times\n" in output
    assert "9 records (at 1, 2, 3, 4, 5, 6, 7, 8, 9) have more than is read, at most 8 tokens" in output
    assert "none has negative" in output
    assert "not covered by the guarantee" in output


def test_what_the_chat_template_of_the_base_refuses_is_a_fault(confide: Confide, tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "talker")
    template = base / "chat_template.jinja"
    refusal = "{{ raise_exception('no system turns') if messages[0].role == 'system' else '' }}"
    template.write_text(refusal + template.read_text(encoding="utf-8"), encoding="utf-8")
    run = tmp_path / "run.toml"
    run.write_text(f'[study]\nname = "test"\n[model]\nbase = "{base}"\n[task]\nkind = "causal-lm"\n', encoding="utf-8")
    turns = [{"role": name, "content": f"{name} says"} for name in ("system", "user", "assistant")]
    (tmp_path / "talks.jsonl").write_text(f"{json.dumps({'messages': turns})}\n" * 3, encoding="utf-8")
    code, output, _ = confide(tmp_path / "talks.jsonl", "--run", run)
    assert (code, "no system turns" in output) == (1, True)


def test_without_the_base_words_are_counted(confide: Confide, notes: Path, run: Path) -> None:
    run.write_text(RUN.format(base="no_such_base"), encoding="utf-8")
    assert "all is read, at most 8 tokens an example, counted in words" in confide(notes, "--run", run)[1]


def test_without_a_run_the_kind_is_guessed_from_columns(confide: Confide, notes: Path) -> None:
    code, output, _ = confide(notes, "--columns", "text=note,label=code,group=patient")
    assert code == 0
    assert "no run was given" in output
    assert "9 persons" in output
    assert "that the task reads" not in output
    assert "all 9 records name a person; --run says whether its task reads them" in output


def test_a_site_gives_file_columns_codes_and_groups(confide: Confide, tmp_path: Path, run: Path) -> None:
    rows = [{"note": f"note {number}", "code": "good", "patient": number} for number in range(9)]
    columns = {"text": "note", "label": "code", "group": "patient"}
    site = {"columns": columns, "labels": {"good": "positive"}, "unit": "group", "max_records_per_group": 1}
    path = write_site(tmp_path, [*rows, *rows], dataset=site)
    code, output, errors = confide("--site", path, "--run", run)
    assert (code, errors) == (0, "")
    assert "label: positive" in output
    assert "all 18 records are of the form" in output
    assert "9 have more than 1, so 9 records do not count" in output


@pytest.mark.parametrize("shape", ["csv", "tsv", "csv.gz", "jsonl.gz", "parquet", "parts", "saved"])
def test_every_shape_of_file_gives_the_same_report(shape: str, confide: Confide, notes: Path, tmp_path: Path) -> None:
    rows = [{**row, "note": row["note"].replace("2", "1")} for row in ROWS]
    notes.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    told = [
        confide(path, "--columns", "text=note,label=code,group=patient")
        for path in (notes, _shaped(rows, shape, tmp_path))
    ]
    (_, one, _), (code, other, errors) = told
    assert (code, errors) == (0, "")
    first = 2 if shape in {"csv", "tsv", "csv.gz"} else 1  # a header is line 1
    assert f"2 records (at {first + 1}, {first + 2})" in other
    told_of = [[line.partition(":")[0] for line in text.splitlines()[1:-2]] for text in (one, other)]
    assert told_of[0] == told_of[1]
    assert "2  group: 1" in other


def _shaped(rows: list[dict[str, Any]], shape: str, folder: Path) -> Path:
    path = folder / f"other.{shape}"
    table = pandas.DataFrame(rows)
    if shape == "saved":
        datasets.Dataset.from_pandas(table).save_to_disk(path)
    elif shape == "parts":
        path.mkdir()
        table[:4].to_parquet(path / "a.parquet")
        table[4:].to_parquet(path / "b.parquet")
    elif shape == "parquet":
        table.to_parquet(path)
    elif shape == "jsonl.gz":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False, sep="\t" if shape == "tsv" else ",")
    return path


def test_exit_code_1_says_which_check_stops_use(confide: Confide, notes: Path, run: Path, tmp_path: Path) -> None:
    notes.write_text(notes.read_text(encoding="utf-8") + "{\n", encoding="utf-8")
    code, output, _ = confide(notes, "--run", run, "--html", tmp_path / "page.html")
    assert code == 1
    assert "notes.jsonl cannot be used: lines" in output
    assert "cannot be used: lines" in (tmp_path / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        ("", (), "holds no records"),
        ('{"body": "x"}', (), "no kind of task reads the columns 'body'"),
        (
            '{"Text": "x"}',
            ("--columns", "text=Txt"),
            "has no column 'Txt'; it has: 'Text'; mend --columns",
        ),
        ('{"text": "x"}', ("--columns", "label=code"), "notes.jsonl: has no column 'code'; it has: 'text'"),
        ('{"text": "x", "label": "y"}', ("--columns", "text"), "--columns 'text' must have the form"),
        ('{"text": "x"}', ("--run", "run.toml", "--columns", "text=text"), "no column 'code'; it has: 'text'"),
        ('{"text": "x"}', ("--test", "none.jsonl"), "none.jsonl: cannot be read: No such file"),
        ('{"text": "x"}', ("--html", "."), "--html .: is a folder"),
        ('{"text": "x"}', ("--run", "none.toml"), "none.toml: there is no such file"),
    ],
)
def test_bad_input_is_one_line(
    content: str, arguments: tuple[str, ...], words: str, confide: Confide, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    Path("notes.jsonl").write_text(content, encoding="utf-8")
    code, output, errors = confide("notes.jsonl", *arguments)
    assert (code, output) == (2, "")
    assert len(errors.splitlines()) == 1
    assert words in errors


def test_no_file_and_no_such_file(confide: Confide, run: Path, tmp_path: Path) -> None:
    assert "data check: no file; name one" in confide()[2]
    for extra in ((), ("--run", run)):
        code, _, errors = confide(tmp_path / "none.jsonl", *extra)
        assert code == 2
        assert "none.jsonl: cannot be read: No such file" in errors


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.jsonl", '{"text": "schön"}\n'.encode("cp1252"), "line 1: not UTF-8; in Excel save"),
        ("x.jsonl", '{"text": "a"}\n'.encode("utf-16"), "line 1: not UTF-8 but UTF-16; in Excel save"),
        ("x.csv", b"text,text\na,b\n", "line 1: two columns are called 'text'; rename one"),
        ("x.jsonl", b'\n["a"]\n', "line 2: a JSON list, must be an object"),
        ("x.jsonl", b"\x00\x00\n", "line 1: not a line of JSON"),
    ],
)
def test_a_file_of_which_no_line_can_be_read_says_why(
    confide: Confide, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    code, output, errors = confide(path)
    assert (code, output, len(errors.splitlines())) == (2, "", 1)
    assert f"{path}: holds no record that can be read; {words}" in errors
    path.write_bytes(b"")
    assert "holds no records" in confide(path)[2]


def test_without_a_run_records_are_cut_as_they_are_read(confide: Confide, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"text": "x" * 50_000, "label": "a"}), encoding="utf-8")
    code, output, _ = confide(path)
    assert code == 0
    assert "[19936 characters left out]" in output
    path.write_text(json.dumps({"text": "x" * 19_999 + " more words", "label": "a"}), encoding="utf-8")
    assert "1 record (at 1) are cut" in confide(path)[1]
