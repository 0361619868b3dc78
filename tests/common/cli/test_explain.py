"""`confide predict --explain`, as it is typed."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.cards import make_card
from support.kinds import of_kind, task_of
from support.sites import random_state

from confide.common.cli.explained import Explainer
from confide.common.cli.main import main
from confide.common.config.run import RunConfig, lock
from confide.common.explanation.coloured import coloured
from confide.common.explanation.page import write_page
from confide.common.export.write import export_adapter
from confide.common.model.base_models import hash_model
from confide.common.model.scores import metrics_table
from confide.common.model.warm_model import warm_model

Confide = Callable[..., tuple[int, str, str]]
Export = Callable[[str], Path]


@pytest.fixture
def confide(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Confide:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["confide", "predict", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capsys.readouterr()

    return call


@pytest.fixture
def export(tmp_path: Path, make_run: Callable[..., RunConfig], base_folder: Path) -> Export:
    def write(kind: str) -> Path:
        run = lock(of_kind(make_run(), kind), hash_model(base_folder))
        model = warm_model(run)
        export_adapter(tmp_path / kind, run, model, random_state(model), make_card(run))
        return tmp_path / kind

    return write


def test_an_explanation_is_a_field_beside_the_prediction(confide: Confide, export: Export) -> None:
    folder = export("text-classification")
    code, output, errors = confide(folder, "the film was good", "bad", "--explain")
    assert (code, errors) == (0, "")
    plain = [json.loads(line) for line in confide(folder, "the film was good", "bad")[1].splitlines()]
    for line, other in zip(output.splitlines(), plain, strict=True):
        answer = json.loads(line)
        (part,) = answer.pop("explanation")
        assert answer == other
        assert part["label"] == answer["prediction"]
        assert "".join(token["text"] for token in part["tokens"]) == answer["text"].replace(" ", "")


def test_coloured_text_takes_the_place_of_json(confide: Confide, export: Export) -> None:
    code, output, _ = confide(export("scoring"), "the film was good", "--explain-text")
    assert code == 0
    first, second = output.splitlines()
    assert re.match(r"score -?[\d.]+: -?[\d.]+, of padding -?[\d.]+; \w+ [+-][\d.e-]+, ", first)
    assert re.sub(r"\x1b\[[\d;]*m", "", second) == "  the film was good"


def test_the_page_holds_texts_and_shares_and_refers_to_nothing(
    confide: Confide, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("<b>very</b> long film\nloved\nhated\n", encoding="utf-8")
    monkeypatch.setattr("confide.common.cli.explained.MAX_RECORDS", 2)
    path = tmp_path / "page.html"
    code, output, _ = confide(export("text-classification"), "--file", lines, "--explain-html", path)
    assert (code, len(output.splitlines())) == (0, 3)
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o077 == 0
    assert "&lt;" in text
    assert "<b>very" not in text
    assert ("loved" in text, "hated" in text) == (True, False)
    assert "1 more records are not shown" in text
    assert "http" not in text
    assert re.findall(r'rgba\([\d,.]+\)"\s+title="[+-]1\.00', text)


def test_names_of_a_text_are_explained(confide: Confide, export: Export, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    folder, text = export("token-classification, spans"), "the long film was good and bad"
    output = confide(folder, text, "--explain", "--explain-html", path)[1]
    answer = json.loads(output)
    assert answer["prediction"]
    assert [part["entity"] for part in answer["explanation"]] == [found["label"] for found in answer["prediction"]]
    assert all(text[found["start"] : found["end"]] == found["text"] for found in answer["prediction"])
    assert _on_page(path) == [_shares(part) for part in answer["explanation"]]


def _shares(part: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What a page should show of an explained value: the colour, the share of the largest, and the piece."""
    most = max(abs(token["attribution"]) for token in part["tokens"])
    shares = [(token["attribution"] / most, token["text"]) for token in part["tokens"]]
    return [("20,140,80" if share > 0 else "200,50,40", f"{share:+.2f}", text) for share, text in shares if share]


def _on_page(path: Path) -> list[list[tuple[str, str, str]]]:
    """The coloured pieces of each explained value."""
    span = r'rgba\(([\d,]+),[\d.]+\)"\s+title="(\S+) of the strongest">([^<]*)</span>'
    values = path.read_text(encoding="utf-8").split("<p><b>")[1:]
    return [re.findall(span, value) for value in values]


def test_a_line_that_cannot_be_predicted_keeps_its_error(confide: Confide, export: Export, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"text": "good"}\n{"text": 3}\n{"text": "bad"}\n', encoding="utf-8")
    code, output, _ = confide(export("text-classification"), "--file", path, "--explain")
    first, wrong, last = (json.loads(line) for line in output.splitlines())
    assert code == 2
    assert "error" in wrong
    assert "explanation" in first
    assert "explanation" in last


def test_another_kind_is_refused_before_its_base_is_loaded(confide: Confide, export: Export, tmp_path: Path) -> None:
    folder = export("relation-classification")
    for option in (("--explain",), ("--explain-text",), ("--explain-html", tmp_path / "page.html")):
        code, output, errors = confide(folder, "a", *option, "--base", tmp_path / "none")
        assert (code, output, len(errors.splitlines())) == (2, "", 1)
        assert "task.kind = 'relation-classification' cannot be explained" in errors


def test_a_page_that_cannot_be_written_is_one_line(confide: Confide, export: Export, tmp_path: Path) -> None:
    code, _, errors = confide(export("scoring"), "good", "--explain-html", tmp_path)
    assert code == 2
    assert errors.splitlines() == [f"confide: error: --explain-html {tmp_path}: is a folder; name a file in it"]


TOKENS = [
    {"column": "text", "text": text, "start": start, "end": start + len(text), "attribution": share}
    for text, start, share in (("good", 0, 2.0), ("so", 5, 0.01), ("bad", 8, -1.0))
]
EXPLAINED = {"label": "a", "value": 1.0, "baseline": 0.0, "tokens": TOKENS}


def test_words_for_a_value_are_green_and_those_against_it_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")  # empty, it means nothing: no-color.org
    shown = coloured({"text": "good so bad\x1b[2J"}, EXPLAINED)
    assert shown.splitlines()[0] == "a: 1, of padding 0; good +2, bad -1, so +0.01"
    assert "\x1b[48;5;40m\x1b[97mgood\x1b[0m so \x1b[48;5;88m\x1b[97mbad\x1b[0m\\x1b[2J" in shown


def test_shares_take_the_place_of_colours_where_none_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured({"text": "good so bad"}, EXPLAINED).splitlines()[1] == "  good[+1.00] so bad[-0.50]"


def test_the_pieces_of_a_word_are_one_in_the_text_form_and_signs_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a letter of two tokens. A piece that begins with a blank, a sign and a Chinese letter begin a word."""
    monkeypatch.setenv("NO_COLOR", "1")
    text = "Brustschmerz, o\u0301 \u75db\u82e6"
    shares = [(0, 2, 1.5), (2, 12, 0.5), (12, 13, 0.25), (13, 15, -0.5), (15, 16, -0.5), (15, 16, -1.0)]
    shares += [(17, 18, 0.6), (18, 19, 0.7)]
    tokens = [{"column": "text", "text": text[s:e], "start": s, "end": e, "attribution": a} for s, e, a in shares]
    first, second = coloured({"text": text}, {**EXPLAINED, "tokens": tokens}).splitlines()
    assert first.partition("; ")[2] == "Brustschmerz +2, o\u0301 -2, \u82e6 +0.7, \u75db +0.6, , +0.25"
    assert second == "  Brustschmerz[+1.00], o\u0301[-1.00] \u75db[+0.30]\u82e6[+0.35]"


def test_a_servers_label_moves_no_terminals_cursor() -> None:
    evil = "a\x1b[2J"
    for name in ({"label": evil}, {"entity": evil, "first_word": 0, "last_word": 1}):
        assert "\x1b[2J" not in coloured({}, {**EXPLAINED, **name})
    assert "\x1b" not in metrics_table({f"f1/{evil}": 0.5})


@pytest.mark.parametrize(("terminals", "told"), [(["stderr"], 2), (["stderr", "stdout"], 0), ([], 0)])
def test_a_terminal_that_shows_no_answers_is_told_how_many_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminals: list[str], told: int
) -> None:
    monkeypatch.setattr("confide.common.cli.explained.explanation", lambda *_: [])
    for name in terminals:
        monkeypatch.setattr(getattr(sys, name), "isatty", lambda: True)
    explainer = Explainer(SimpleNamespace(task=task_of("scoring")))  # type: ignore[arg-type]
    for _ in range(25):
        explainer.fields({"text": "a"}, 0.0)
    assert capsys.readouterr() == ("", "".join(f"explained {number} records\n" for number in (10, 20)[:told]))


def test_a_text_without_a_finding_is_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("confide.common.cli.explained.explanation", lambda *_: [])
    explainer = Explainer(SimpleNamespace(task=task_of("scoring")))  # type: ignore[arg-type]
    assert explainer.text({"text": "a\x1b[2J"}, 0.0) == "nothing was found here: a\\x1b[2J"


def test_a_score_s_words_are_coloured_by_their_shares_on_a_page(tmp_path: Path) -> None:
    explained = {**EXPLAINED, "score": 2.5}
    del explained["label"]
    write_page(tmp_path / "page.html", [{"texts": {"text": "good so bad"}, "explanation": [explained]}])
    assert _on_page(tmp_path / "page.html") == [
        [("20,140,80", "+1.00", "good"), ("20,140,80", "+0.01", "so"), ("200,50,40", "-0.50", "bad")]
    ]
    assert "<b>score 2.5</b> <small>1, of padding\n0</small>" in (tmp_path / "page.html").read_text(encoding="utf-8")
