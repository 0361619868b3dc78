"""`confide init`, `evaluate` and `predict`: typer declarations over functions of other files."""

import json
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from confide.common.errors import InputError
from confide.common.model.scores import metrics_table
from confide.common.tasks import Task

FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="a run directory, or its adapter/ folder")]
BaseOption = Annotated[str | None, typer.Option(help="base model to use in place of the one that the run names")]


def init() -> None:
    """Print a commented run.toml: every key, its default and its meaning. Redirect it to a file and edit it."""
    typer.echo(files("confide.common.config").joinpath("run.template.toml").read_text(encoding="utf-8"), nl=False)


def evaluate(
    folder: FolderArgument,
    data: Annotated[
        Path, typer.Option(metavar="FILE", help="texts and labels: .jsonl, .csv, .parquet or saved dataset")
    ],
    columns: Annotated[str, typer.Option(help="names of the file's columns: text=note,label=code")] = "",
    base: BaseOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Print all metrics of a finished adapter on a file of records."""
    from confide.common.data.records import read_public

    names = _columns(columns)
    _prepare()
    from confide.common.export.load import load_adapter
    from confide.common.model.evaluation import all_metrics

    run, model = load_adapter(folder, base)
    task: Task = run.task
    records, warnings = read_public(data, task, names)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    metrics = all_metrics(model, records)
    typer.echo(json.dumps(metrics) if as_json else metrics_table(metrics))


def predict(
    folder: FolderArgument,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="texts to predict; or use --file")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="file with one text per line, UTF-8; - is standard input")] = None,
    base: BaseOption = None,
) -> None:
    """Print the predictions of a finished adapter, one JSON object per text on standard output."""
    if not texts and file is None:
        raise InputError("predict: no texts; name them as arguments, or a file with --file (- for standard input)")
    inputs = [*(texts or []), *(_lines(file) if file else [])]
    for number, text in enumerate(inputs, start=1):
        if any("\ud800" <= sign <= "\udfff" for sign in text):  # Python's form of bytes that are not UTF-8
            raise InputError(f"predict: text {number} is not UTF-8; convert it, for example with iconv -t UTF-8")
    _prepare()
    from confide.common.export.load import load_adapter
    from confide.common.model.evaluation import answer

    run, model = load_adapter(folder, base)
    predictions = answer(model, [run.task.from_text(text) for text in inputs])
    for text, prediction in zip(inputs, predictions, strict=True):
        typer.echo(json.dumps({"text": text, "prediction": prediction}, ensure_ascii=False))


def _prepare() -> None:
    from confide.common.flower import prepare

    prepare()


def _lines(file: Path) -> list[str]:
    try:
        content = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return content.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n").split("\n")
    except OSError as error:
        raise InputError(f"--file {file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"--file {file}: not UTF-8; convert it, for example with iconv -t UTF-8") from None


def _columns(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(equals and name and column for name, equals, column in pairs):
        raise InputError(f"--columns {text!r} must have the form text=note,label=code")
    return {name: column for name, _, column in pairs}
