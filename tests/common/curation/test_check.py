"""Each check finds a fault that was planted in a file, says where it is, and is silent about a file without one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.kinds import RECORDS, SETTINGS, base_of, task_of
from support.tiny_bert import tiny_tokenizer

from confide.common.curation.check import Report, check_data, report_text
from confide.common.curation.form import Form, form_of, guessed_form
from confide.common.curation.identifiers import identifiers_in
from confide.common.curation.page import write_page
from confide.common.errors import InputError
from confide.common.model.base_models import load_tokenizer

Rows = list[Any]
GOOD, BAD = ("lovely", "warm", "kind"), ("rude", "cold", "broken")
FAULTS = ("empty texts", "exact doubles", "near doubles", "doubles with other labels", "label noise", "languages")


def _clean(count: int = 60) -> Rows:
    """Distinct records whose words give their label away."""
    draw = np.random.Generator(np.random.PCG64(0))
    rows = []
    for number in range(count):
        words = [*draw.choice(BAD if number % 2 else GOOD, 4), *(f"w{draw.integers(10**6)}" for _ in range(12))]
        text = "the staff of the ward was " + " ".join(words)
        rows.append({"text": text, "label": ("positive", "negative")[number % 2]})
    return rows


def _write(folder: Path, rows: Rows, name: str = "notes.jsonl") -> Path:
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _form(**changes: str) -> Form:
    return form_of(task_of("text-classification"), changes)


def _found(report: Report, state: str = "warning") -> dict[str, str]:
    return {finding.subject: finding.text for finding in report.findings if finding.state == state}


def _changed(number: int, **values: Any) -> Rows:
    rows = _clean()
    return [*rows[: number - 1], {**rows[number - 1], **values}, *rows[number:]]


def test_a_clean_file_has_no_finding_and_can_be_used(tmp_path: Path) -> None:
    report = check_data(_write(tmp_path, _clean()), _form())
    assert _found(report) == _found(report, "problem") == {}
    assert {finding.subject for finding in report.findings} >= {*FAULTS, "schema", "lines", "encoding", "identifiers"}
    assert "notes.jsonl can be used" in report_text(report)


_LONG = "the staff was kind " * 40
PLANTED = {
    "empty texts": (_changed(7, text=" "), "1 record (at 7)"),
    "lengths": (_changed(7, text=_LONG), "1 record (at 7) have more than is read, at most 64 tokens an example"),
    "exact doubles": ([*_clean(), {**_clean()[4], "text": _clean()[4]["text"].upper() + "  "}], "2 records (at 5, 61)"),
    "near doubles": ([*_clean(), {**_clean()[4], "text": _clean()[4]["text"] + "."}], "2 records (at 5, 61)"),
    "doubles with other labels": ([*_clean(), {**_clean()[4], "label": "negative"}], "2 records (at 5, 61)"),
    "schema": (_changed(7, label="so-so"), "1 record (at 7): label 'so-so' is not one of"),
    "labels": ([*_clean()[::2], *_clean()[::2]], "none has negative"),
    "label noise": (_changed(7, label="negative"), "at 7 negative, looks like positive"),
    "languages": (_changed(7, text="die Pflege war nicht gut und der Arzt kam zu spät"), "German in 1 record (at 7)"),
    "replacement characters": (_changed(7, text="the caf\ufffd of the ward was lovely"), "1 record (at 7)"),
    "control characters": (_changed(7, text="the staff of the\x00 ward was lovely"), "1 record (at 7)"),
    "mojibake": (_changed(7, text="the cafÃ© of the ward was lovely"), "1 record (at 7)"),
    "identifiers: e-mail address": (_changed(7, text="the ward: ann.b@example.org"), "1 record (at 7)"),
    "identifiers: telephone number": (_changed(7, text="the ward: call +49 30 1234567"), "1 record (at 7)"),
    "identifiers: IBAN": (_changed(7, text="the ward DE89 3704 0044 0532 0130 00"), "1 record (at 7)"),
    "identifiers: US social security number": (_changed(7, text="the ward 219-09-9999"), "1 record (at 7)"),
}


@pytest.mark.parametrize("subject", PLANTED)
def test_a_planted_fault_is_found_at_its_place(subject: str, tmp_path: Path) -> None:
    rows, words = PLANTED[subject]
    report = check_data(_write(tmp_path, rows), _form())
    assert words in _found(report)[subject]
    assert report.stops() == []


def test_names_in_texts_are_no_labels_to_doubt(tmp_path: Path) -> None:
    """A text may have one name by chance."""
    rows = [{"text": row["text"], "entities": [{"start": 4, "end": 9, "label": row["label"]}]} for row in _clean()]
    form = form_of(task_of("token-classification, spans", labels=("positive", "negative")), {})
    assert "label noise" not in {finding.subject for finding in check_data(_write(tmp_path, rows), form).findings}


@pytest.mark.parametrize("letters", ["Spaß“ schön", "CAFÉ»", "l’été à Noël", "приве́т", "naïve — “quoted”", "ÅÄÖ"])
def test_good_letters_are_no_mojibake(letters: str, tmp_path: Path) -> None:
    found = _found(check_data(_write(tmp_path, _changed(7, text=f"the staff {letters}")), _form()))
    assert found.keys() <= {"languages"}


def test_mojibake_of_other_scripts_is_found(tmp_path: Path) -> None:
    broken = "спасибо".encode().decode("cp1252", errors="replace")
    assert "mojibake" in _found(check_data(_write(tmp_path, _changed(7, text=broken)), _form()))


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("IBAN", "DE89 3704 0044 0532 0130 00", "DE88 3704 0044 0532 0130 00"),
        ("card number", "4111 1111 1111 1111", "4111 1111 1111 1112"),
        ("Spanish identity number", "12345678Z", "12345678A"),
        ("NHS number", "943 476 5919", "943 476 5918"),
        ("French social security number", "2 55 08 14 168 025 38", "2 55 08 14 168 025 39"),
        ("Italian fiscal code", "RSSMRA85T10A562S", "RSSMRA85Z10A562S"),
        ("Italian fiscal code", "MRTMTT91D08F205J", "MRTMTT91D08F205K"),
        ("telephone number", "+49 30 1234567", "5.123456789"),
        ("US social security number", "219-09-9999", "900-09-9999"),
    ],
)
def test_check_digits_and_shape_decide_what_is_an_identifier(name: str, right: str, wrong: str) -> None:
    assert name in identifiers_in(f"the ward {right}, at night")
    assert name not in identifiers_in(f"the ward {wrong}, at night")


def test_texts_of_a_test_file_are_found(tmp_path: Path) -> None:
    rows = _clean()
    test = [{"note": rows[4]["text"]}, {"note": rows[8]["text"] + "!"}, {"note": "another text of the ward"}]
    own = [{"note": row["text"], "label": row["label"]} for row in rows]
    path, form = _write(tmp_path, own), _form(text="note")
    found = _found(check_data(path, form, test=_write(tmp_path, test, "test.jsonl")))
    assert "1 record (at 5) here are in the test file too, and nearly so 1 record (at 9)" in found["test file"]
    report = check_data(path, form, test=_write(tmp_path, [{"text": "an unknown text"}], "test.jsonl"))
    assert "none of its 1 texts is here" in _found(report, "ok")["test file"]
    with pytest.raises(InputError, match=r"record 1 has none of the columns 'note'; it has: 'body'"):
        check_data(path, form, test=_write(tmp_path, [{"body": "x"}], "test.jsonl"))


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("with_answers", [True, False])
def test_own_records_in_a_test_file_are_found_for_every_kind(kind: str, *, with_answers: bool, tmp_path: Path) -> None:
    task = task_of(kind)
    names = task.fields() if with_answers else task.inputs()
    test = _write(tmp_path, [{name: row[name] for name in names} for row in RECORDS[kind][1:]], "test.jsonl")
    found = _found(check_data(_write(tmp_path, RECORDS[kind]), form_of(task, {}), test=test))
    assert "1 record (at 2) here are in the test file too, and nearly so none" in found["test file"]


def test_doubles_are_named_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = _clean()
    doubled = [other for row in rows for other in (row, {**row, "text": row["text"] + "."})]
    found = _found(check_data(_write(tmp_path, doubled), _form()))
    assert "60 texts in 120 records" in found["near doubles"]
    assert "2 records (at 1, 2); 2 records (at 3, 4); 2 records (at 5, 6)" in found["near doubles"]


def _words(count: int) -> str:
    return " ".join(["good"] * count)


def _asked(context: int, question: int = 6) -> dict[str, Any]:
    return {"context": _words(context), "question": _words(question), "answers": {"text": [], "answer_start": []}}


def _ranked(*counts: int) -> dict[str, Any]:
    return {"query": "bad", "candidates": [_words(count) for count in counts], "relevance": [0] * len(counts)}


def _preferred(prompt: int, chosen: int) -> dict[str, Any]:
    return {"prompt": _words(prompt) + " ", "chosen": _words(chosen), "rejected": "bad"}


# Of each kind: settings, records that are read whole, records that are not. Special tokens: 1 to 3.
READ: dict[str, tuple[dict[str, Any], Rows, Rows]] = {
    "seq2seq": ({}, [{"source": _words(30), "target": _words(30)}], [{"source": "bad", "target": _words(33)}]),
    "ranking": ({"max_candidates": 3}, [_ranked(28, 28, 28)], [_ranked(3, 33), _ranked(3, 3, 3, 3)]),
    "preference": ({}, [{**_preferred(10, 20), "rejected": _words(18)}], [_preferred(10, 23), _preferred(40, 3)]),
    "question-answering": ({"max_windows": 2}, [_asked(36)], [_asked(45), _asked(3, 12)]),
    "causal-lm, completion": (
        {"max_windows": 2},
        [{"prompt": _words(20) + " ", "completion": _words(40)}],
        [{"prompt": _words(40) + " ", "completion": "bad"}, {"prompt": "bad ", "completion": _words(65)}],
    ),
    "token-classification": (
        {"max_windows": 2},
        [{"tokens": ["good"] * 60, "tags": ["O"] * 60}],
        [{"tokens": ["good"] * 65, "tags": ["O"] * 65}],
    ),
}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("with_base", [True, False])
def test_a_record_is_long_if_its_kind_does_not_read_all_of_it(kind: str, *, with_base: bool, tmp_path: Path) -> None:
    settings, fitting, long = READ[kind]
    form = form_of(task_of(kind, max_length=32, **settings), {})
    if with_base:
        form = replace(form, tokenizer=load_tokenizer(base_of(kind)) if base_of(kind) else tiny_tokenizer())
    report = check_data(_write(tmp_path, [*fitting, *long]), form)
    places = ", ".join(str(number) for number in range(2, 2 + len(long)))
    parts = {"max_windows": "examples", "max_candidates": "candidates"}
    room = "".join(f", {most} {parts[name]} a record" for name, most in settings.items())
    assert f"(at {places}) have more than is read, at most 32 tokens an example{room};" in _found(report)["lengths"]
    report = check_data(_write(tmp_path, fitting), form)
    assert f"all is read, at most 32 tokens an example{room}" in _found(report, "ok")["lengths"]
    assert ("counted in words" in _found(report, "ok")["lengths"]) != with_base


def test_a_pair_with_one_empty_text_is_named(tmp_path: Path) -> None:
    rows = [{"text": "a film", "text_pair": "good", "label": "no"}, {"text": "a film", "text_pair": " ", "label": "no"}]
    report = check_data(_write(tmp_path, rows), guessed_form(rows[0], {}, "it"))
    assert "1 record (at 2)" in _found(report)["empty texts"]


def test_persons_are_counted_with_their_records(tmp_path: Path) -> None:
    rows = [{**row, "patient": max(0, number - 9)} for number, row in enumerate(_clean())]
    found = _found(check_data(_write(tmp_path, rows), _form(group="patient")))
    assert "51 persons, half with at most 1 records, one with 10" in found["units"]
    assert "1 have more than 8, so 2 records do not count" in found["units"]
    nobody = check_data(_write(tmp_path, [{**row, "patient": None} for row in rows]), _form(group="patient"))
    assert {"units", "schema"} <= set(nobody.stops())


def test_a_line_that_cannot_be_read_stops_use(tmp_path: Path) -> None:
    report = check_data(_write(tmp_path, [*_clean(), "{", {"text": "the ward"}]), _form())
    assert report.stops() == ["lines"]
    problem = _found(report, "problem")["lines"]
    assert "1 record (at 61): not a line of JSON" in problem
    assert "1 record (at 62): no column 'label'" in problem


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_nothing_is_ok_of_a_file_in_another_encoding(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    text = "\n".join(json.dumps({**row, "text": "café " + row["text"]}, ensure_ascii=False) for row in _clean())
    path.write_text(text, encoding=encoding)
    report = check_data(path, _form())
    assert "not UTF-8" in _found(report, "problem")["lines"]
    assert _found(report, "ok") == {}
    found = _found(check_data(_write(tmp_path, _clean(), "own.jsonl"), _form(), test=path))
    assert "no text of it can be read" in found["test file"]


@pytest.mark.parametrize("with_run", [True, False])
def test_blanks_and_case_of_labels_show(tmp_path: Path, *, with_run: bool) -> None:
    odd = [{"text": f"text {label!r}", "label": label} for label in ("positive ", "Negative", "", "positively")]
    form = _form() if with_run else guessed_form(odd[0], {}, "it")
    found = _found(check_data(_write(tmp_path, [*_clean(200), *odd]), form))["labels"]
    assert found.startswith("positive 100 (49%), negative 100 (49%), 'positive ' 1 (0%), Negative 1 (0%), '' 1 (0%), ")
    assert "'positive ' differs from 'positive' by blanks or case alone: mend it; 'Negative' differs from 'neg" in found
    assert found.count("differs from") == 2


def test_a_schema_may_have_labels_that_differ_by_case(tmp_path: Path) -> None:
    rows = [{"text": row["text"], "label": "bB"[number % 2]} for number, row in enumerate(_clean())]
    report = check_data(_write(tmp_path, rows), form_of(task_of("text-classification", labels=("b", "B")), {}))
    assert _found(report, "ok")["labels"] == "b 30 (50%), B 30 (50%)"


def test_every_reason_is_listed_and_the_verdict_counts_what_is_left_out(tmp_path: Path) -> None:
    report = check_data(_write(tmp_path, _changed(7, text=" ")), _form())
    assert "which leaves 1 record out; a simulation needs it mended" in report_text(report)
    rows = [{**row, "label": f"odd {number}"} if number < 20 else row for number, row in enumerate(_clean())]
    report = check_data(_write(tmp_path, rows), _form())
    listed = _found(report)["schema"]
    assert all(f"1 record (at {number + 1}): label 'odd {number}' is not one of" in listed for number in range(20))
    verdict = "notes.jsonl can be used by an institution, which leaves 20 records out; a simulation needs them mended"
    assert verdict in report_text(report).splitlines()


def test_too_few_usable_records_stop_use(tmp_path: Path) -> None:
    rows = [{**row, "label": [row["label"]]} if number < 40 else row for number, row in enumerate(_clean())]
    report = check_data(_write(tmp_path, rows), _form())
    assert report.stops() == ["schema"]
    assert "only 20 of 60 records could be used" in _found(report, "problem")["schema"]


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("with_run", [True, False])
def test_records_of_every_kind_are_read(kind: str, *, with_run: bool, tmp_path: Path) -> None:
    rows = [*RECORDS[kind], *RECORDS[kind]]
    path, task = _write(tmp_path, rows), task_of(kind)
    form = form_of(task, {}) if with_run else guessed_form(rows[0], {}, "it")
    assert (form.inputs, form.answers) == (task.inputs(), task.answers())
    report = check_data(path, form)
    assert report.stops() == []
    assert "2 records (at 1, 3)" in _found(report)["exact doubles"]
    assert len(report.preview) == 3
    subjects = {finding.subject for finding in report.findings}
    assert ("labels" in subjects) == ("labels" in type(task).model_fields)
    assert ("scores" in subjects) == (task.answers()[:1] in (("score",), ("relevance",)))


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    for content, words in (("", "holds no records"), ('{"note": "x"}', "no column 'text'; it has: 'note'")):
        path = tmp_path / "bad.jsonl"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=words):
            check_data(path, _form())
    with pytest.raises(InputError) as long:
        check_data(_write(tmp_path, [{"x" * 10_000: "a"}]), _form())
    assert len(str(long.value).removeprefix(str(tmp_path))) < 400
    with pytest.raises(InputError, match="No such file"):
        check_data(tmp_path / "none.jsonl", _form())
    with pytest.raises(InputError, match="no kind of task reads the columns 'note'"):
        guessed_form(["note"], {}, "it")


def test_the_preview_and_the_page_show_records_as_they_are_read(tmp_path: Path) -> None:
    rows = [{"text": f"<b>{number}</b>" + "long " * 90, "label": "positive"} for number in range(5)]
    report = check_data(_write(tmp_path, rows), _form())
    assert [record["label"] for record in report.preview] == ["positive"] * 3
    assert all(len(record["text"]) <= 100 for record in report.preview)
    write_page(tmp_path / "page.html", report)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;0&lt;/b&gt;" in page
    assert "not covered by the guarantee" in page
    assert "http" not in page
    assert (tmp_path / "page.html").stat().st_mode & 0o077 == 0
    with pytest.raises(InputError, match="--html"):
        write_page(tmp_path / "none" / "page.html", report)


def test_labels_of_a_text_are_no_tags() -> None:
    """O is a blood group, and I-131 an isotope; of tags they are what BIO says."""
    names = ["O", "B-cell", "I-131"]
    assert form_of(task_of("multi-label-classification"), {}).labels({"text": "x", "labels": names}) == tuple(names)
    assert form_of(task_of("token-classification"), {}).labels({"tokens": [], "tags": names}) == ("cell",)
