"""`confide init`, `evaluate`, `predict` and `export`, in this process."""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import datasets
import pandas
import pytest
import torch
from support.cards import make_card
from support.kinds import RECORDS, task_of
from support.sites import make_records, random_state
from support.speed import CPU
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from confide.common.cli.main import main
from confide.common.cli.predictions import input_fault
from confide.common.config.run import RunConfig, load_run, lock
from confide.common.export.load import load_adapter
from confide.common.export.write import export_adapter
from confide.common.model.adapter import get_state, set_state
from confide.common.model.base_models import hash_model
from confide.common.model.evaluation import predict as predict_records
from confide.common.model.warm_model import WarmModel, warm_model
from confide.common.tasks import TaskSettings

Confide = Callable[..., tuple[int, str, str]]
MakeRun = Callable[..., RunConfig]
TEXTS = ["the film was good", "loved \u2028 it, very long", "not bad \U0001f600"]


@pytest.fixture
def confide(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Confide:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["confide", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        output, errors = capsys.readouterr()
        return int(stopped.value.code or 0), output, errors

    return call


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun, model: WarmModel, base_folder: Path) -> Path:
    """A run's folder with a finished adapter in it."""
    run = lock(make_run(), hash_model(base_folder))
    folder = tmp_path_factory.mktemp("run")
    export_adapter(folder / "adapter", run, model, random_state(model), make_card(run))
    return folder


@pytest.fixture
def records_file(tmp_path: Path) -> Path:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in make_records(10)), encoding="utf-8")
    return path


def test_init_prints_a_run_that_is_accepted(confide: Confide, tmp_path: Path) -> None:
    code, output, _ = confide("init")
    assert code == 0
    path = tmp_path / "run.toml"
    path.write_text(output, encoding="utf-8")
    run = load_run(path)
    assert run.study.name == "my-study"


def test_init_names_every_kind_of_task(confide: Confide) -> None:
    kinds = [tag.tag for kind in get_args(get_args(TaskSettings)[0]) for tag in get_args(kind)[1:]]
    assert len(kinds) >= 3
    listed = confide("init")[1].partition("# The kinds: ")[2].partition(".")[0]
    assert re.findall(r'"([a-z0-9-]+)"', listed) == kinds


def test_codes_with_names_are_evaluated(confide: Confide, adapter: Path, tmp_path: Path) -> None:
    """As Hugging Face's datasets keep labels; a file of their names gives the same report."""
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    rows = {name: [record[name] for record in make_records(10)] for name in features}
    datasets.Dataset.from_dict(rows, datasets.Features(features)).to_parquet(tmp_path / "codes.parquet")
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "names.parquet")
    codes, names = (confide("evaluate", adapter, "--data", tmp_path / f"{name}.parquet") for name in ("codes", "names"))
    assert codes == names
    assert codes[0] == 0


def test_init_shows_the_true_defaults_of_every_key(confide: Confide, tmp_path: Path) -> None:
    _, output, _ = confide("init")
    path = tmp_path / "run.toml"
    path.write_text(output, encoding="utf-8")
    quiet = load_run(path)
    path.write_text(
        re.sub(
            r"(?m)^# (?=(?!institutions|keys|sha256|noise_multiplier|data|partition|by|columns|validation_every)"
            r"\w+ = )",
            "",
            output,
        ),
        encoding="utf-8",
    )
    spoken = load_run(path)
    shown = spoken.model_dump() | {"simulation": None}
    assert shown == quiet.model_dump() | {"simulation": None}
    for section, values in quiet.model_dump().items():
        for key in values or {}:
            assert re.search(rf"(?m)^(# )?{key} = ", output), f"{section}.{key} is not shown"
    for kind in get_args(get_args(TaskSettings)[0]):
        for key in get_args(kind)[0].model_fields:
            assert re.search(rf"(?m)^(#  ? ?)?{key} = ", output), f"task.{key} is not shown"


def test_predict_gives_one_json_object_per_text(confide: Confide, adapter: Path) -> None:
    _, loaded = load_adapter(adapter)
    expected = predict_records(loaded, [{"text": text} for text in TEXTS])
    for folder in (adapter, adapter / "adapter"):
        code, output, _ = confide("predict", folder, *TEXTS)
        lines = [json.loads(line) for line in output.split("\n") if line]
        assert code == 0
        assert [line["text"] for line in lines] == TEXTS
        assert [line["prediction"] for line in lines] == expected


def test_predict_reads_one_text_per_line(
    confide: Confide, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines end at a line feed and nowhere else: a text may hold U+2028, as in the card's own program."""
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    code, output, _ = confide("predict", adapter, "--file", path)
    assert code == 0
    assert [json.loads(line)["text"] for line in output.split("\n") if line] == TEXTS
    of_windows = b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n")
    for content in (path.read_bytes(), of_windows):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert confide("predict", adapter, "--file", "-")[1] == output


def test_evaluate_gives_precision_recall_and_f1_for_each_class(
    confide: Confide, adapter: Path, records_file: Path
) -> None:
    code, output, _ = confide("evaluate", adapter, "--data", records_file, "--json")
    report = json.loads(output)
    assert code == 0
    rows = ("negative", "positive", "macro mean", "weighted mean")
    parts = {f"{part}/{row}" for row in rows for part in ("precision", "recall", "f1")}
    assert report.keys() == {"accuracy", *parts}
    assert all(0 <= value <= 1 for value in report.values())
    code, output, _ = confide("evaluate", adapter, "--data", records_file)
    assert code == 0
    assert "precision" in output
    assert "negative" in output


def test_evaluate_translates_columns(confide: Confide, adapter: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text('note,code\n"the film, good",positive\nbad,negative\n', encoding="utf-8")
    code, output, _ = confide("evaluate", adapter, "--data", path, "--columns", "text=note,label=code", "--json")
    assert code == 0
    assert json.loads(output)["accuracy"] in (0.0, 0.5, 1.0)


def _refused(result: tuple[int, str, str], *words: str) -> None:
    code, output, errors = result
    assert (code, output) == (2, ""), errors
    assert len(errors.splitlines()) == 1
    for word in words:
        assert word in errors


def test_evaluate_refuses_bad_data(confide: Confide, adapter: Path, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("note,code\nbad,negative\n", encoding="utf-8")
    _refused(
        confide("evaluate", adapter, "--data", path), "own.csv", "'text'", "'note', 'code'", "--columns text=COLUMN"
    )
    _refused(confide("evaluate", adapter, "--data", path, "--columns", "note"), "--columns 'note'", "text=note")
    _refused(confide("evaluate", adapter, "--data", tmp_path / "none.csv"), "none.csv", "No such file")
    path.write_text("text,label\nbad,worse\n", encoding="utf-8")
    _refused(confide("evaluate", adapter, "--data", path), "own.csv:2", "'worse'", "negative")


def test_predict_refuses_bad_input(confide: Confide, adapter: Path, tmp_path: Path) -> None:
    _refused(confide("predict", adapter), "no texts", "--file")
    _refused(confide("predict", adapter, "a", "--columns", "text=note"), "texts have no columns", "--jsonl")
    _refused(confide("predict", adapter, "--file", tmp_path / "none.txt"), "none.txt", "No such file")
    path = tmp_path / "latin.txt"
    path.write_bytes("good\nschön\nbad".encode("latin-1"))
    code, output, errors = confide("predict", adapter, "--file", path)
    good, wrong, bad = (json.loads(line) for line in output.splitlines())
    assert (good["text"], bad["text"], code) == ("good", "bad", 2)
    assert wrong["error"].startswith("text 2 is not UTF-8; in Excel save it as 'CSV UTF-8', or type: iconv -f WIN")
    assert "1 of 3 lines could not be predicted" in errors


def test_predict_refuses_text_that_is_not_unicode(confide: Confide, adapter: Path) -> None:
    """A terminal in another encoding gives lone surrogates."""
    code, output, _ = confide("predict", adapter, "sch\udcf6n")
    assert (code, "is not UTF-8" in output) == (2, True)


def test_predict_gives_records_back_with_a_prediction_or_an_error(
    confide: Confide, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.jsonl"
    lines = ['{"id": 7, "text": "the film was good"}', "[1]", '{"id": 8}', '{"id": 9, "text": 3}', '{"text": "bad"}']
    path.write_text("\n".join(lines), encoding="utf-8")
    code, output, errors = confide("predict", adapter, "--file", path)
    first, *wrong, last = (json.loads(line) for line in output.splitlines())
    assert code == 2
    assert "3 of 5 lines" in errors
    assert first.keys() == {"id", "text", "prediction"}
    assert first["id"] == 7
    assert last.keys() == {"text", "prediction"}
    assert [row["error"] for row in wrong] == [
        "record 2 is no JSON object; write one on each line, with text",
        "record 3 has no column 'text'; it has: 'id'; name the one that holds it with --columns text=COLUMN",
        "record 4: text is a number, must be a string; put it in quotes, or name another column",
    ]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    assert confide("predict", adapter, "--file", "-", "--jsonl")[1] == output


@pytest.mark.parametrize("name", ["notes.jsonl", "notes.csv"])
def test_predict_reads_columns_of_other_names(
    confide: Confide, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A file of which no record fits is refused once; of a stream each record has its own answer."""
    rows = pandas.DataFrame({"Befund": ["the film was good", "bad"], "text": ["7", "8"]})
    write = {".jsonl": lambda own: own.to_json(tmp_path / name, orient="records", lines=True)}
    write |= {".csv": lambda own: own.to_csv(tmp_path / name, index=False)}
    write[Path(name).suffix](rows)
    code, output, _ = confide("predict", adapter, "--file", tmp_path / name, "--columns", "text=Befund")
    plain = [json.loads(line) for line in confide("predict", adapter, *rows["Befund"])[1].splitlines()]
    found = [json.loads(line) for line in output.splitlines()]
    assert code == 0
    assert [(str(row["text"]), row["Befund"]) for row in found] == [("7", "the film was good"), ("8", "bad")]
    assert [row["prediction"] for row in found] == [row["prediction"] for row in plain]
    write[Path(name).suffix](rows[["Befund"]])
    remedy = "record 1 has no column 'text'; it has: 'Befund'; name the one that holds it with --columns text=COLUMN"
    _refused(confide("predict", adapter, "--file", tmp_path / name), f"{name}: no record can be predicted: {remedy}")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"Befund": "bad"}\n')))
    code, output, _ = confide("predict", adapter, "--file", "-", "--jsonl")
    assert (code, json.loads(output)) == (2, {"error": remedy})


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz", ".jsonl.gz", ".parquet"])
def test_predict_reads_the_tables_that_evaluate_reads(
    confide: Confide, adapter: Path, tmp_path: Path, ending: str
) -> None:
    """A line of such a file is no text: its header would be predicted, and separators beside the words."""
    rows = pandas.DataFrame({"id": [7, 8], "text": ["the film was good", "bad"], "label": ["positive", "negative"]})
    path, packed = tmp_path / f"notes{ending}", "gzip" if ending.endswith(".gz") else None
    if ending == ".parquet":
        rows.to_parquet(path)
    elif "jsonl" in ending:
        rows.to_json(path, orient="records", lines=True, compression=packed)
    else:
        rows.to_csv(path, index=False, sep="\t" if "tsv" in ending else ",", compression=packed)
    code, output, _ = confide("predict", adapter, "--file", path)
    shown = [json.loads(line) for line in output.splitlines()]
    assert code == 0
    assert [(str(row["id"]), row["text"]) for row in shown] == [("7", "the film was good"), ("8", "bad")]
    assert [row["prediction"] for row in shown] == [
        json.loads(line)["prediction"]
        for line in confide("predict", adapter, "the film was good", "bad")[1].splitlines()
    ]
    assert confide("evaluate", adapter, "--data", path)[0] == 0


@pytest.mark.parametrize("options", [[], ["--explain"], ["--explain-text"]])
def test_half_a_character_costs_its_own_line_alone(
    confide: Confide, adapter: Path, tmp_path: Path, options: list[str]
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"text": "a \\ud83d"}\n{"text": "bad", "note": "\\ud83d"}\n{"text": "good"}', encoding="utf-8")
    code, output, errors = confide("predict", adapter, "--file", path, *options)
    wrong, *rest = output.splitlines()
    assert (code, json.loads(wrong)["text"]) == (2, "a \ud83d")
    assert json.loads(wrong)["error"].startswith("record 1: text holds half a surrogate pair")
    assert "1 of 3 lines could not be predicted" in errors
    assert [word in output for word in ("bad", "good")] == [True, True]
    assert options or [json.loads(line).get("note") for line in rest] == ["\ud83d", None]


def test_the_answer_of_a_record_is_never_why_it_is_not_predicted() -> None:
    """A fault is shown only where it stands whatever the answer is."""
    for kind, (good, *_) in RECORDS.items():
        task = task_of(kind)
        without = {name: good[name] for name in task.inputs()}
        assert input_fault(task, {**good, **dict.fromkeys(task.answers(), 3)}) is None
        assert input_fault(task, without) is None
        both = kind == "causal-lm, completion"  # prompt and completion are texts or lists alike: either may be wrong
        assert both or input_fault(task, {**without, task.inputs()[0]: 3}), kind


def test_predict_answers_before_its_input_ends(adapter: Path) -> None:
    """A service writes a line, and waits for the answer."""
    with subprocess.Popen(
        [sys.executable, "-m", "confide.common.cli.main", "predict", adapter, "--file", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in ("good", "very bad"):
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["text"] == text
        process.stdin.close()
        assert process.wait(60) == 0


def test_bad_folders_are_one_line(confide: Confide, adapter: Path, tmp_path: Path, base_folder: Path) -> None:
    _refused(confide("predict", tmp_path / "none", "good"), "none", "no such folder")
    _refused(confide("predict", tmp_path, "good"), "adapter/run.json")
    broken = tmp_path / "broken"

    def changed(name: str, content: bytes | None) -> Path:
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(adapter / "adapter", broken)
        if content is None:
            (broken / name).unlink()
        else:
            (broken / name).write_bytes(content)
        return broken

    _refused(confide("predict", changed("run.json", b"{"), "good"), "run.json", "not JSON")
    _refused(confide("predict", changed("run.json", b"[]"), "good"), "run.json", "object")
    _refused(confide("predict", changed("run.json", b"{}"), "good"), "run.json", "is missing")
    _refused(confide("predict", changed("head.safetensors", None), "good"), "head.safetensors", "cannot be read")
    _refused(confide("predict", changed("adapter_model.safetensors", b"\0" * 99), "good"), "not a safetensors file")
    other = (adapter / "adapter" / "head.safetensors").read_bytes()
    _refused(confide("predict", changed("adapter_model.safetensors", other), "good"), "does not fit")
    run = json.loads((adapter / "adapter" / "run.json").read_text(encoding="utf-8"))
    run["model"]["sha256"] = "0" * 64
    _refused(confide("predict", changed("run.json", json.dumps(run).encode()), "good"), "0" * 64, "hashes to", "--base")
    run["model"] = {"base": "no_such_model"}
    _refused(
        confide("predict", changed("run.json", json.dumps(run).encode()), "good"),
        "'no_such_model'",
        "name the model's folder",
    )
    assert confide("predict", broken, "good", "--base", base_folder)[0] == 0


def test_a_wrong_file_is_told_before_a_base_is_loaded(
    confide: Confide, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("confide.common.export.load.load_adapter", None)
    _refused(confide("evaluate", adapter, "--data", tmp_path / "typo.jsonl"), "typo.jsonl", "No such file")
    for name in ("typo.jsonl", "typo.csv"):
        _refused(confide("predict", adapter, "--file", tmp_path / name), name, "No such file")


def test_export_writes_a_plain_classifier_with_the_logits_of_the_run_s_model(
    confide: Confide, make_run: MakeRun, base_folder: Path, tmp_path: Path
) -> None:
    """Programs that know neither PEFT nor Confide load it."""
    run = lock(make_run(task={"pooling": "native"}), hash_model(base_folder))
    model, folder = warm_model(run, CPU), tmp_path / "plain"
    set_state(model.module, random_state(model))
    export_adapter(tmp_path / "run" / "adapter", run, model, get_state(model.module), make_card(run))
    code, output, _ = confide("export", tmp_path / "run", "--merge", folder)
    assert (code, output) == (0, f"{folder}: written; its README.md begins with a program that uses it\n")
    assert "python predict.py MODEL_FOLDER" in (folder / "README.md").read_text(encoding="utf-8")
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    model.wrapped.disable_hooks()
    with torch.inference_mode():
        theirs, ours = plain(**tokens).logits, model.module(**tokens)
    assert ours.std() > 0.1, "weights that show a difference"
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_export_refuses_what_holds_no_adapter_and_a_folder_that_exists(
    confide: Confide, adapter: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    _refused(confide("export", tmp_path / "none", "--merge", new), "none: no such folder; name an exported adapter")
    _refused(confide("export", tmp_path, "--merge", new), "holds neither run.json nor adapter/run.json", "at its end")
    assert not new.exists()
    _refused(confide("export", adapter, "--merge", adapter), f"--merge {adapter}: exists already, must be a new folder")
    code, _, errors = confide("export", adapter)
    assert (code, "Missing option '--merge'" in errors) == (2, True)
