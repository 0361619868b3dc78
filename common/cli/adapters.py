"""`confide init`, `evaluate`, `predict` and `export`: typer declarations over functions of other files."""

import json
import sys
from collections.abc import Iterable, Iterator
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from confide.common.cli.streams import arriving, is_table, require_columns, rows_of
from confide.common.config.sections import Quantization
from confide.common.errors import InputError
from confide.common.model.scores import metrics_table
from confide.common.tasks import Task

if TYPE_CHECKING:
    from confide.common.cli.explained import Explainer
    from confide.common.cli.predictions import Columns, Extra
    from confide.common.model.warm_model import WarmModel

ColumnsOption = Annotated[str, typer.Option(help="names of the file's columns: text=note,label=code")]
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="a run directory, or its adapter/ folder")]
BaseOption = Annotated[str | None, typer.Option(help="base model to use in place of the one that the run names")]


def init() -> None:
    """Print a commented run.toml: every key, its default and its meaning. Redirect it to a file and edit it."""
    typer.echo(files("confide.common.config").joinpath("run.template.toml").read_text(encoding="utf-8"), nl=False)


def evaluate(
    folder: FolderArgument,
    data: Annotated[
        Path, typer.Option(metavar="FILE", help="texts and labels: .jsonl, .csv, .tsv, .parquet or a folder")
    ],
    columns: ColumnsOption = "",
    base: BaseOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Print all metrics of a finished adapter on a file of records."""
    from confide.common.data.records import read_public

    names = columns_named(columns)
    _prepare()
    from confide.common.export.load import find_run, load_adapter
    from confide.common.model.evaluation import all_metrics

    task: Task = find_run(folder)[1].task
    # Before the base is loaded: a typing error costs no minutes.
    records, warnings = read_public(data, task, names, option="--columns")
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    metrics = all_metrics(load_adapter(folder, base)[1], records)
    typer.echo(json.dumps(metrics) if as_json else metrics_table(metrics))


def predict(  # noqa: PLR0913 - one parameter an option
    folder: FolderArgument,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="texts to predict; or use --file")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="file with one text per line, UTF-8; .jsonl, or a table as of evaluate; - is standard input"),
    ] = None,
    jsonl: Annotated[bool, typer.Option(help="each line is a record as a JSON object, as in a .jsonl file")] = False,
    columns: ColumnsOption = "",
    base: BaseOption = None,
    explain: Annotated[bool, typer.Option("--explain", help="add the share of each token in the answer")] = False,
    explain_text: Annotated[bool, typer.Option("--explain-text", help="the same as coloured text, not JSON")] = False,
    explain_html: Annotated[Path | None, typer.Option(metavar="FILE", help="write it as a page too")] = None,
) -> None:
    """Print what a finished adapter says of texts, one JSON object per text on standard output, as they arrive.

    A record of a .jsonl file or of a table comes back with its prediction, and a line that cannot be predicted as its
    error. Then the exit code is 2.
    """
    if not texts and file is None:
        raise InputError("predict: no texts; name them as arguments, or a file with --file (- for standard input)")
    names = columns_named(columns)
    records = jsonl or (file is not None and (is_table(file) or file.name.endswith(".jsonl")))
    if names and not records:
        raise InputError(f"--columns {columns!r}: texts have no columns; name a .jsonl file or a table, or add --jsonl")
    _prepare()
    from confide.common.cli.predictions import nothing
    from confide.common.export.load import find_run, load_adapter

    task: Task = find_run(folder)[1].task
    read = {name: names.get(name, name) for name in task.inputs()} if records else None
    parts = chain([[text.encode(errors="surrogateescape") for text in texts or []]], _arriving(file, read))
    if not (explain or explain_text or explain_html):
        failed = _print(load_adapter(folder, base)[1], parts, nothing, read)
    else:
        explainer = _explainer(folder, base)
        extra = explainer.text if explain_text else explainer.fields
        failed = _print(explainer.model, parts, extra, read)
        if explain_html:
            explainer.write_page(explain_html)
    if failed:
        raise InputError(failed)


def _print(model: "WarmModel", parts: Iterable[list[bytes]], extra: "Extra", columns: "Columns") -> str:
    """Print the predictions of lines, and return how many could not be predicted, in words."""
    from confide.common.cli.predictions import predicted

    number, answered, failed = 0, 0, 0
    escaped = (
        "utf" not in (sys.stdout.encoding or "").lower()
    )  # JSON has escapes of its own for what such a stream lacks
    for lines in parts:
        numbered = list(enumerate(lines, start=number + 1))
        asked = [(place, line) for place, line in numbered if line.strip() or columns is None]  # no record is blank
        for content, is_failure in predicted(model, asked, columns, extra):
            as_text = isinstance(content, str)
            typer.echo(content if as_text else json.dumps(content, ensure_ascii=escaped, default=str))
            failed += is_failure
        number += len(lines)
        answered += len(asked)
    return f"predict: {failed} of {answered} lines could not be predicted; each says why" if failed else ""


def _explainer(folder: Path, base: str | None) -> "Explainer":
    """Return the explainer of an adapter, whose kind is looked at before its base is loaded."""
    from confide.common.cli.explained import Explainer
    from confide.common.explanation.explaining import require_explainable
    from confide.common.export.load import find_run, load_exactly

    require_explainable(find_run(folder)[1].task)
    return Explainer(load_exactly(folder, base)[1])


def export(
    folder: FolderArgument,
    merge: Annotated[
        Path, typer.Option(metavar="FOLDER", help="new folder for the base with the adapter in its weights")
    ],
    quantization: Annotated[
        Quantization, typer.Option(help="int8 or nf4: weights of linear layers in eight or four bits")
    ] = "none",
    base: BaseOption = None,
) -> None:
    """Merge a finished adapter into its base: a plain transformers folder, for programs that know no adapters."""
    _prepare()
    from confide.common.export.merge import merge_adapter

    merge_adapter(folder, merge, base, quantization)
    typer.echo(f"{merge}: written; its README.md begins with a program that uses it")


def _arriving(file: Path | None, columns: "Columns") -> Iterator[list[bytes]]:
    if file is None:
        return iter([])
    parts = rows_of(file) if is_table(file) else arriving(file)
    stays = is_table(file) or file.is_file()  # a pipe is not read before its lines are wanted
    return require_columns(file, parts, columns) if columns and stays else parts


def _prepare() -> None:
    from confide.common.flower import prepare

    prepare()


def columns_named(text: str) -> dict[str, str]:
    """Return the columns that an option names; `InputError` says what form it must have."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if not all(equals and name and column for name, equals, column in pairs):
        raise InputError(f"--columns {text!r} must have the form text=note,label=code")
    return {name: column for name, _, column in pairs}
