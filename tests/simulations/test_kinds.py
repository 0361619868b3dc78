"""Every kind of task from end to end: plan, simulate, validate, evaluate, predict and report."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support.families import save_tiny
from support.kinds import FAULTY_LINES, LINES, RECORDS, SETTINGS, file_of_kind, task_of

Confide = Callable[..., tuple[int, str, str]]

# These in every run, the others in `make families`.
_USUAL = {"token-classification", "causal-lm"}


@pytest.fixture(
    params=[
        pytest.param(kind, marks=() if kind in _USUAL else pytest.mark.waits)
        for kind in SETTINGS
        if kind != "text-classification"
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def kind_file(kind: str, run_file: Path, tmp_path: Path) -> Path:
    """The run of `run_file` with another kind of task, sixty records of it, and one round of validation."""
    records = [RECORDS[kind][number % 2] for number in range(58)] + [task_of(kind).made_up(0, n, 9) for n in (0, 1)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    text = file_of_kind(run_file.read_text(encoding="utf-8"), kind)
    run_file.write_text(text + "\n[evaluation]\nvalidation_every = 2\n", encoding="utf-8")
    return run_file


def test_a_kind_runs_from_plan_to_prediction(confide: Confide, kind: str, kind_file: Path, tmp_path: Path) -> None:
    task, out = task_of(kind), tmp_path / "out"
    assert confide("plan", kind_file)[0] == 0
    code, output, errors = confide("simulate", kind_file, "--out", out, "--json")
    assert code == 0, errors
    summary = json.loads(output)
    assert summary["status"] == "completed"
    assert summary["score"]["metric"] == task.headline
    assert f"{task.headline} " in errors
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["validation"].keys() == summary["epsilon"].keys()
    report = (out / "report.html").read_text(encoding="utf-8")
    assert task.headline in report
    assert ("accuracy" in report) == (task.headline == "accuracy")
    assert "<h2>Samples</h2>" not in report, "the test share is of the user's own data"
    code, output, _ = confide("evaluate", out, "--data", tmp_path / "data.jsonl", "--json")
    assert code == 0
    assert task.headline in json.loads(output)
    assert confide("evaluate", out, "--data", tmp_path / "data.jsonl")[0] == 0
    assert confide("verify", out)[0] == 0
    (tmp_path / "lines").write_text("\n".join(LINES[kind]) + "\n", encoding="utf-8")
    records = ["--jsonl"] if len(task.inputs()) > 1 else []
    code, output, _ = confide("predict", out, "--file", tmp_path / "lines", *records)
    answers, empty = [json.loads(line) for line in output.splitlines()], [': ""' in line for line in LINES[kind]]
    assert (code, ["error" in answer for answer in answers]) == (2 if any(empty) else 0, empty)
    for line, fault in (FAULTY_LINES[kind],) if kind in FAULTY_LINES else ():
        code, output, _ = confide("predict", out, line)
        assert (code, fault in json.loads(output)["error"]) == (2, True)


@pytest.mark.parametrize("file", ["data", "test"])
def test_a_record_that_a_template_refuses_ends_a_simulation_before_it_begins(
    confide: Confide, run_file: Path, tmp_path: Path, file: str
) -> None:
    base = save_tiny("llama", tmp_path / "talker")
    template = base / "chat_template.jinja"
    refusal = "{{ raise_exception('no system turns') if messages[0].role == 'system' else '' }}"
    template.write_text(refusal + template.read_text(encoding="utf-8"), encoding="utf-8")
    good = {"messages": RECORDS["causal-lm"][0]["messages"]}
    bad = {"messages": [{"role": "system", "content": "be kind"}, *good["messages"]]}
    for name in ("data", "test"):
        records = [good] * 29 + [bad if name == file else good]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    text = re.sub(
        r"(?s)\[task\]\n.*?\[federation\]",
        '[task]\nkind = "causal-lm"\nmax_length = 64\n\n[federation]',
        run_file.read_text(),
    )
    text = re.sub(r"(?m)^base = .*$", f'base = "{base}"', text)
    run_file.write_text(text + f'\n[evaluation]\ndata = "{tmp_path}/test.jsonl"\n', encoding="utf-8")
    code, _, errors = confide("simulate", run_file, "--out", tmp_path / "out")
    assert (code, (tmp_path / "out").exists()) == (2, False)
    assert "no system turns; change the messages, or use another base" in errors
    assert "Traceback" not in errors
