"""Which lines no round would use: the same that joining refuses, by their number, and nowhere but in a local file."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.families import save_tiny
from support.installations import write_site
from support.kinds import task_of

from confide.client.config import DatasetSection, load_site_config
from confide.client.data.line_check import Lines, check_lines, too_few_lines
from confide.client.data.records import check_file
from confide.common.config.run import RunConfig
from confide.common.errors import InputError
from confide.common.tasks import TextClassification

MakeRun = Callable[..., RunConfig]
GOOD = {"text": "good", "label": "positive"}


def _dataset(folder: Path, content: str | bytes, name: str = "notes.jsonl", **dataset: Any) -> DatasetSection:
    config = load_site_config(write_site(folder, dataset={"path": name, **dataset}))
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return config.dataset


def _lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_every_broken_line_is_named_with_its_number_and_not_only_the_first(tmp_path: Path) -> None:
    content = b"\n".join([b'{"text": "a"}', b"", b"{", b"[1]", b'{"text": "\xff"}', b'{"note": 1}', b'{"text": "b"}'])
    found = check_lines(_dataset(tmp_path, content), [], Path())
    assert found.num_lines == 6
    assert found.unused == {}
    assert found.broken == {
        3: "not a line of JSON; each line must be one JSON object",
        4: "a JSON list, must be an object with named columns",
        5: "not UTF-8; in Excel save it as 'CSV UTF-8', or type: iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW",
        6: "no column 'text'; it has: 'note'",
    }


def test_a_table_is_looked_at_line_by_line(tmp_path: Path) -> None:
    content = 'text,label\r\na,b\r\n"never closed,c\r\n1,2,3\r\nd,e\r\n'
    found = check_lines(_dataset(tmp_path, content, "notes.csv"), [], Path())
    assert sorted(found.broken) == [3, 4]
    assert found.num_lines == 4
    found = check_lines(_dataset(tmp_path, "text,text\na,b\nc,d\n", "notes.csv"), [], Path())
    assert found.broken == {1: "two columns are called 'text'; rename one; without its header no line can be read"}


def test_records_of_several_lines_are_counted_and_the_longest_is_named(tmp_path: Path) -> None:
    """A quote that is open by mistake shows as a record that is longer than any note."""
    dataset = _dataset(tmp_path, 'text,label\n"a\nb",c\nd,e\n"f\n\n\ng, h",c\n', "notes.csv")
    found = check_lines(dataset, [], Path())
    assert (found.num_lines, found.broken, found.spread) == (3, {}, {2: 2, 5: 4})
    assert found.several() == "; 2 records go over several lines, the longest over 4"
    report = found.write(tmp_path / "local").read_text(encoding="utf-8")
    assert report.splitlines()[1:] == ["line 5 begins the longest record, of 4 lines"]
    jsonl = _dataset(tmp_path, _lines({"text": "a\nb"}))
    assert check_lines(jsonl, [], Path()).spread == {}


def test_a_doubtful_record_is_broken_and_counts_once(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, 'text,label\n"a,b\nc,d\ne",f\ng,h\n', "notes.csv")
    found = check_lines(dataset, [], Path())
    assert (found.num_lines, list(found.broken)) == (2, [2])
    assert "may be a record of its own" in found.broken[2]


def test_a_run_on_offer_says_what_its_labels_leave_out(tmp_path: Path, make_run: MakeRun) -> None:
    rows = [GOOD, {**GOOD, "label": "J18"}, {**GOOD, "label": "J19"}, {**GOOD, "text": " "}]
    dataset = _dataset(tmp_path, _lines(*rows), labels={"J18": "positive"})
    assert check_lines(dataset, [], Path()).unused == {}
    found = check_lines(dataset, [make_run()], Path())
    assert found.broken == {}
    assert sorted(found.unused) == [3, 4]
    assert found.unused[3].startswith("study test: label 'J19' is not one of")


def test_a_run_of_another_kind_breaks_no_line_of_this_one(tmp_path: Path, make_run: MakeRun) -> None:
    """An offer whose columns the file lacks can use no line; another offer is judged by its own columns."""
    labels = make_run(study={"name": "labels"})
    scores = make_run(study={"name": "scores"}).model_copy(update={"task": task_of("scoring")})
    dataset = _dataset(tmp_path, _lines(GOOD, GOOD))
    found = check_lines(dataset, [labels, scores], Path())
    assert found.broken == {}
    assert found.wasted["labels"].total() == 0
    assert found.wasted["scores"] == {"no column 'score'; it has: 'text', 'label'": 2}
    [few] = found.too_few(0.5)
    assert few.startswith("study scores could use 0 of 2 lines")
    assert check_lines(dataset, [scores], Path()).broken.keys() == {1, 2}


def test_a_record_that_the_chat_template_refuses_contributes_nothing(tmp_path: Path, make_run: MakeRun) -> None:
    """Gemma's template takes no system turn: a round would pass over such records, and be charged all the same."""
    turns = [{"role": "user", "content": "the film"}, {"role": "assistant", "content": "was good"}]
    asked = [{"role": "system", "content": "be kind"}, *turns]
    dataset = _dataset(tmp_path, _lines({"messages": turns}, {"messages": asked}))
    base = save_tiny("llama", tmp_path / "models" / "talker")
    run = make_run(model={"base": "talker"}).model_copy(update={"task": task_of("causal-lm")})
    assert check_lines(dataset, [run], base.parent).unused == {}
    template = base / "chat_template.jinja"
    refusal = "{{ raise_exception('no system turns') if messages[0].role == 'system' else '' }}"
    template.write_text(refusal + template.read_text(encoding="utf-8"), encoding="utf-8")
    found = check_lines(dataset, [run], base.parent)
    reason = "the model's chat template refuses messages with the roles system, user, assistant: no system turns; "
    assert [*found.unused] == [2]
    assert reason in found.unused[2]
    template.unlink()
    config = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    (base / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}), encoding="utf-8")
    assert [*check_lines(dataset, [run], base.parent).unused] == [1, 2]
    beside = run.model_copy(update={"model": run.model.model_copy(update={"base": "near"})})
    assert [*check_lines(dataset, [beside.placed({"near": str(base)})], tmp_path).unused] == [1, 2]
    long = run.model_copy(update={"model": run.model.model_copy(update={"base": "a" * 300})})
    assert check_lines(dataset, [long], tmp_path).unused == {}, "a server may name anything"
    assert check_lines(dataset, [run], tmp_path).unused == {}, "a base that is not here is the doctor's matter"


def test_a_record_whose_answer_is_not_read_contributes_nothing(
    tmp_path: Path, make_run: MakeRun, base_folder: Path
) -> None:
    """Its windows would teach that its context holds none."""
    near = {"context": "good film", "question": "which?", "answers": {"text": ["good"], "answer_start": [0]}}
    contexts = ("good " + "long " * 900, "long " * 400 + "good", "long " * 900 + "good")  # the last one is cut
    answers = [{"text": ["good"], "answer_start": [context.index("good")]} for context in contexts]
    rows = [{**near, "context": context, "answers": own} for context, own in zip(contexts, answers, strict=True)]
    dataset = _dataset(tmp_path, _lines(near, *rows), max_chars=4000)
    run = make_run(model={"base": base_folder.name}).model_copy(update={"task": task_of("question-answering")})
    found = check_lines(dataset, [run], base_folder.parent)
    assert [*found.unused] == [3, 4]
    assert all("no window that is read holds its first answer" in why for why in found.unused.values())
    assert found.wasted[run.study.name].total() == 2


def test_the_kept_answer_is_of_this_file_and_this_base(tmp_path: Path, make_run: MakeRun) -> None:
    """A page that stays open must not approve by an answer from before the base came, or the file changed."""
    turns = [{"role": name, "content": "the film"} for name in ("system", "user", "assistant")]
    dataset = _dataset(tmp_path, _lines({"messages": turns}))
    run = make_run(model={"base": "talker"}).model_copy(update={"task": task_of("causal-lm")})
    assert too_few_lines(dataset, [run], tmp_path / "models") is None, "without a base nothing is known"
    base = save_tiny("llama", tmp_path / "models" / "talker")
    refusal = "{{ raise_exception('no system turns') if messages[0].role == 'system' else '' }}"
    (base / "chat_template.jinja").write_text(refusal, encoding="utf-8")
    assert "could use 0 of 1 lines" in str(too_few_lines(dataset, [run], base.parent))
    dataset.path.write_text(_lines({"messages": turns}, {"messages": turns}), encoding="utf-8")
    assert "could use 0 of 2 lines" in str(too_few_lines(dataset, [run], base.parent))


def test_a_record_without_a_group_contributes_nothing(tmp_path: Path, make_run: MakeRun) -> None:
    groups = ["p", None, "", float("nan"), 0, "  ", ["p"]]
    rows = [{**GOOD, "patient": group} for group in groups]
    dataset = _dataset(tmp_path, _lines(*rows), unit="group", columns={"group": "patient"})
    assert sorted(check_lines(dataset, [make_run()], Path()).unused) == [2, 3, 4, 6]


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(content=st.binary(max_size=60) | st.text('{}"textlab:,\n\t 1é', max_size=60).map(str.encode))
def test_a_line_is_broken_exactly_where_joining_would_refuse(tmp_path: Path, ending: str, content: bytes) -> None:
    header = {".jsonl": b"", ".csv": b"text,label\n", ".tsv": b"text\tlabel\n"}[ending]
    dataset = _dataset(tmp_path, header + content, f"notes{ending}")
    try:
        check_file(dataset, TextClassification(labels=("negative", "positive")))
    except InputError:
        refused = True
    else:
        refused = False
    columns = dataset.model_copy(update={"columns": {"text": "text", "label": "label"}})
    try:
        broken = bool(check_lines(columns, [], Path()).broken)
    except InputError:
        broken = True
    assert broken == refused


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no records"):
        check_lines(_dataset(tmp_path, "\n\n"), [], Path())


def test_the_report_is_for_its_owner_alone_and_replaces_the_last_one(tmp_path: Path) -> None:
    for broken in ({1: "why \ud800", 12: "b"}, {7: "c"}):
        report = Lines(tmp_path / "x.jsonl", 20, broken, {5: "d"}).write(tmp_path / "local")
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    assert stat.S_IMODE(report.parent.stat().st_mode) == 0o700
    first, *lines = report.read_text(encoding="utf-8").splitlines()
    assert first.startswith(f"{tmp_path / 'x.jsonl'}, ")
    assert lines == ["line 7 is broken: c", "line 5 would contribute nothing: d"]
